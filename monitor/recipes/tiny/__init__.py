"""The recipe of the bundled model: `python -m monitor.recipes.tiny --data DIR --out DIR --minutes M`."""
