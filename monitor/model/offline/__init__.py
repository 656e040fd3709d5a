"""Run a model outside the server: collect residuals of texts, measure effects of features, and steer."""
