"""sae-monitor: safety monitoring for model deployments through a sparse autoencoder's features."""

__version__ = "0.1.0"
