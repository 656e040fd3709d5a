"""Whether locked policies hold for a pair that they were not fitted to: another number type, quantisation or fine-tune.

`policies` scores the texts that policies were calibrated on and compares, `rules` has the verdict, `equivalence` the
tests, and `scores` what a lock records for them.
"""
