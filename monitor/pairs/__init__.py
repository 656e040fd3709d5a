"""Pairs of a language model and its dictionary (sparse autoencoder) that come with the package."""
