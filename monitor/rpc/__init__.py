"""gRPC: messages to records and back, errors to statuses, calls to the engine and the scorer, and the server."""
