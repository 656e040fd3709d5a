"""The decision log: what was decided about each request, on disk before its caller gets an answer."""
