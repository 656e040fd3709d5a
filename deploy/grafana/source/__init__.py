"""The dashboards' source: typed builders, one module for each dashboard."""
