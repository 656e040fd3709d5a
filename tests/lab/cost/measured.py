"""Points of a measurement of cost, made up."""

from monitor.lab.cost.points import Point, Share


def point(way="policy", strength=-1.0, **changes):
    """An edit at which half of the continuations are unsafe."""
    half = Share(0.5, 0.4, 0.6, 100)
    given = {
        "own_score": 0.5,
        "own_share": 0.25,
        "later_score": 1.0,
        "later_share": 0.75,
        "unsafe": half,
        "change": Share(-0.25, -0.35, -0.15, 100),
        "kl": 0.125,
        "perplexity": 12.5,
        "perplexity_ratio": 1.25,
    }
    return Point(way, strength, **{**given, **changes})
