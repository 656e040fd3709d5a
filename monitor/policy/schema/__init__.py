"""What may be written in a policy file. Each part of the file is a pydantic model."""
