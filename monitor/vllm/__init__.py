"""The monitor inside vLLM: the tap in its model, the gate in its scheduler, and its core behind our ports."""
