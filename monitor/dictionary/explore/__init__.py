"""Looking for features: by text, by contrast of two sets of texts, on a map."""
