"""The type of the function that shows a line of progress."""

from collections.abc import Callable

Report = Callable[[str], None]
"""Shows one line of text to the person who runs the recipe."""
