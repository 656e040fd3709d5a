"""What the recipe tells the person who runs it."""

from collections.abc import Callable

Report = Callable[[str], None]
"""Takes one line of progress in words."""
