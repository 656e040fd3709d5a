"""Running a model: loading it, tapping one layer, batching requests, scoring tokens."""
