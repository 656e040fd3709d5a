"""How well a dictionary's features find labelled concepts, beside baselines, on rows that no training read."""
