"""Broken input for everything that reads input: mutations, targets, and a driver (`python -m tests.fuzz`)."""
