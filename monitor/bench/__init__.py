"""Benchmarks that anyone can run; see `python -m monitor.bench --help`."""
