"""Feature cards: what is known of each feature of a dictionary (density, contexts, promoted tokens, labels)."""
