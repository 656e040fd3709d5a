"""The commands `sae-monitor policy …`."""
