"""The self-test at load: does this dictionary read this model at the right hook point, in the right units?

`self_test` measures, `expected` knows what the numbers should be, and `diagnosis` finds out why they are not.
"""
