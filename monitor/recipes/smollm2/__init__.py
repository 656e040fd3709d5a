"""Makes the dictionary of the pair `smollm2`: texts, the model's own answers, the sweep and the training."""
