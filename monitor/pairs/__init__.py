"""Pairs that ship with the package: a model and its dictionary each."""
