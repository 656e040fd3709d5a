"""Policies at work: readings of tokens in, detections, actions and clamps out."""
