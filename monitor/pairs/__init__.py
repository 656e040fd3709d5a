"""Pairs of a language model and its dictionary (sparse autoencoder) that have a name; `registry` finds them."""
