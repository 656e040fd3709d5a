"""Text that other servers are asked and write: what of it is text, and in which pieces a watching model reads it."""
