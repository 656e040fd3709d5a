"""Training of dictionaries on a model's residuals: text, activations, objectives, the training loop and reports."""
