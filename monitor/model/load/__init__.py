"""Load a model and find its parts: weights, decoder layers, hook points, devices."""
