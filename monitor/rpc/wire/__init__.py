"""The border between messages of monitor.v1 and the project's own records. Needs no torch, no grpc."""
