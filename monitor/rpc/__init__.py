"""The gRPC server: wire messages, access, calls to the engine and the scorer, decisions, and the process."""
