"""Automatic labels: what a feature fires on, put in words, and measured on places that the label was not made from."""
