"""Programs that trained the models and dictionaries of `monitor.pairs`. They are not part of the wheel."""
