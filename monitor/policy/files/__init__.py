"""Readers of policy files, examples, locks, probe weights and tests. Their errors name the file, line and column."""
