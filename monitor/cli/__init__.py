"""The command line: one module or folder for each command, mounted by name in `monitor.cli.app`.

Commands that need a verdict ask a server over gRPC: one that is running, or one that they start in this process.
"""
