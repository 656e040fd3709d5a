"""The monitor inside vLLM: the tap in its compiled model, the gate in its scheduler, and its engine behind our ports."""
