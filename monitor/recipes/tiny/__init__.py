<<<<<<< HEAD
"""The recipe of the bundled model: `python -m monitor.recipes.tiny --data DIR --out DIR --minutes M`."""
=======
"""Trains the demo model: `python -m monitor.recipes.tiny --data DIR --out DIR --minutes M`.

`pipeline` runs the steps in order, and each step has a module of its own.
"""
>>>>>>> reader1
