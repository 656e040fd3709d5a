"""The monitor as a plug-in of `vllm serve`: in the process of its engine core, behind its own API server."""
