"""Loading a model: weights, decoder layers, hook points, devices."""
