"""How the pairs that ship were made. Not part of the wheel."""
