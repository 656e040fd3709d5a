"""The decision log: what was decided about each request, on disk before its caller learns of it."""
