"""The commands `sae-monitor decisions …`."""
