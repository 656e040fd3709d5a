"""What may be written in a policy file: one model per part of it."""
