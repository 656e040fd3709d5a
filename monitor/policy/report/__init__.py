"""One HTML page about a policy set: how its policies were measured, which texts they hit and miss, and their limits.

The page needs no network. Styles and charts are inside it, and a content security policy forbids everything else.
"""

from monitor.policy.report.page import page
from monitor.policy.report.records import Group, Heat, PolicyReport, PolicySetReport, Scores, Token

__all__ = ["Group", "Heat", "PolicyReport", "PolicySetReport", "Scores", "Token", "page"]
