"""What single features do to what a model writes: the demonstrations of the paper, on any pair, with their failures."""
