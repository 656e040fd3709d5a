"""Policies: what is looked for, and how it is recognised in readings.

Policy files and locks are read and resolved here, and their rules score readings. Detections, actions and clamps go out
as records. Fitting (`monitor.policy.fit`) is imported on its own.
"""

from monitor.policy.files.loader import load_policies, read_folder
from monitor.policy.files.yaml_document import PolicyProblems, Problem
from monitor.policy.policy import Policy, Rule, WeightedFeature
from monitor.policy.policyset import PolicySet
from monitor.policy.rules.observer import RequestRules

__all__ = [
    "Policy",
    "PolicyProblems",
    "PolicySet",
    "Problem",
    "RequestRules",
    "Rule",
    "WeightedFeature",
    "load_policies",
    "read_folder",
]
