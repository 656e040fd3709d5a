"""Dictionaries on disk: tensor files, matrices read row by row, dictionaries that stay in their files."""
