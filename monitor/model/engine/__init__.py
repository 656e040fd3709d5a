"""Running requests: batching passes, scoring their tokens, sampling, releasing text."""
