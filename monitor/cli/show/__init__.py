"""What the command line prints: verdicts, tokens, bars, tables, pictures."""
