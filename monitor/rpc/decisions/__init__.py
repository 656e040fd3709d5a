"""Decisions of requests: built into records, written to the log, streamed to clients, and added to traces."""
