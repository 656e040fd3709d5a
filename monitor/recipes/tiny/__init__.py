"""How the demo model is made: `python -m monitor.recipes.tiny --data DIR --out DIR --minutes M`.

Knows nothing itself; `pipeline` puts the steps in order.
"""
