"""Pairs, readings, texts, splits and evaluations, for notebooks and for the command line."""
