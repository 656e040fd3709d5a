"""The server process: gRPC channel options, memory allocator, watchdog."""
