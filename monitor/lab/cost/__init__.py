"""`sae-monitor policy cost`: what a policy's suppression does, and what it costs, beside what it must beat."""
