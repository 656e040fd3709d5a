"""Finding features: by example texts, by the contrast of two sets of texts, and on a map of similar features."""
