"""Policies: what is looked for, and how it is recognised in readings.

Policy files and locks are read and resolved here, and their rules score readings. Detections, actions and clamps go out
as records. Fitting (`monitor.policy.fit`) is imported on its own.
"""
