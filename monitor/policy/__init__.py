"""What is forbidden, and how it is recognised in readings.

Knows policy files, locks and rules. Does not know models, tensors or the network: readings come in as arrays,
detections, actions and clamps go out as records. Fitting (`monitor.policy.fit`) is imported on its own.
"""

from monitor.policy.document import PolicyProblems, Problem
from monitor.policy.loader import load_policies, read_folder
from monitor.policy.observer import RequestObserver
from monitor.policy.policy import Policy, Rule, WeightedFeature
from monitor.policy.policyset import PolicySet

__all__ = [
    "Policy",
    "PolicyProblems",
    "PolicySet",
    "Problem",
    "RequestObserver",
    "Rule",
    "WeightedFeature",
    "load_policies",
    "read_folder",
]
