"""Reading weights from disk in part: tensors in files, matrices of features, and dictionaries that stay on disk."""
