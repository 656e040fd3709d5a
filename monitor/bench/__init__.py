"""Measurements that the README quotes, each run as a module: `python -m monitor.bench.NAME`."""
