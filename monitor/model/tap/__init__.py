"""Read and edit the residual stream at the tapped layer: watched features, probes, signals and clamps."""
