"""The command line: one module per command, mounted by name in `monitor.cli.app`.

Knows how people talk to the sidecar. Does not know how a token is scored: every command that needs a
verdict asks a server over gRPC, its own or a running one.
"""
