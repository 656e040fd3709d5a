"""Streams of text that other servers write, and what of a request and an answer is text: for a watching model to read."""
