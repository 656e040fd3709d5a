"""Conversion between messages of monitor.v1 and the records of the project. Needs neither torch nor grpc."""
