"""One HTML page about a policy set: what was measured, how it looks on texts, what it does not see.

Knows records and markup. Does not know models, files or how anything was measured. The page asks nobody for
anything: styles and pictures are inside it, and a content security policy forbids the rest.
"""

from monitor.policy.report.page import page
from monitor.policy.report.records import Group, Heat, PolicyReport, PolicySetReport, Scores, Token

__all__ = ["Group", "Heat", "PolicyReport", "PolicySetReport", "Scores", "Token", "page"]
