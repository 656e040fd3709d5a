"""The self-test at load: does this dictionary read this model at the right place, in the right units?

`run.self_test` measures, `expected` says what the numbers should be, `diagnosis` finds out why they are not.
"""
