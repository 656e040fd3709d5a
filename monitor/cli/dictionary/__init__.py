"""The commands `sae-monitor dictionary …`."""
