"""What operators see of a running server: metrics, traces, logs and the decision log."""
