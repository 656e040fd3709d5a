"""Generated protobuf and gRPC code of package monitor.v1 (`.ci/protos` writes it); nothing here is written by hand."""
