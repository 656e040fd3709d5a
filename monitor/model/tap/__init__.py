"""Reading and editing the residual stream: watched features, probes and clamps at the tapped layer."""
