"""The commands `sae-monitor features …`."""
