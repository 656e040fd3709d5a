"""Feature cards: for each feature its statistics, strongest contexts, promoted tokens, neighbours and label."""
