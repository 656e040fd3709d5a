"""Pairs that come with the package. A pair is a model and its dictionary."""
