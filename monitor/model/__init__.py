"""Run a model: load it, tap one layer, generate and score in batches, and check that the dictionary fits."""
