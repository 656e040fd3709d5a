"""Contracts of gateways that call a guardrail: each asks for a verdict on text that another server reads or writes."""
