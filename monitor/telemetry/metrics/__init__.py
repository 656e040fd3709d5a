"""Prometheus metrics: families, label sets, and the port that serves them."""
