"""The self-test at load: does this dictionary read this model at the right hook point, in the right units?

`self_test` measures and compares, `expected` holds the values to compare with, and `diagnosis` looks for the cause of
a difference.
"""
