"""Envoy's external processing: requests and responses go through an application on their way through Envoy."""
