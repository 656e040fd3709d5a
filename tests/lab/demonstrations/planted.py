"""A demonstration whose feature surely shows in what the bundled model writes: talk about films, on fewer prompts."""

from dataclasses import replace

from monitor.lab.demonstrations import catalogue

PLANTED = replace(catalogue.FILMS, targets=(0.5, 1.0, 2.0), new=16)
