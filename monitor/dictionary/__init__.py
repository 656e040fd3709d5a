"""Sparse autoencoders ("dictionaries"): their arithmetic, file formats, training, statistics and feature search."""
