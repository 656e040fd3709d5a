"""Running a model outside the server: residuals of texts, effects of features, steering."""
