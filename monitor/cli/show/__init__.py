"""Output of the command line: verdicts, tokens, bars, tables and pictures."""
