"""The budget of false positives of a set of policies, measured with a pair and shared over its rules.

`requests` makes benign requests of every length, `scores` has all rules score them in one pass, and `shared_set` sets
the thresholds and writes them down.
"""
