"""Training dictionaries: objectives, sparse arithmetic, the loop, what it reads and what it reports."""
