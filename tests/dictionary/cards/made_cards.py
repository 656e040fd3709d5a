"""Cards of a small dictionary."""

from __future__ import annotations


def spelt(ids):
    return "".join(f" w{token}" for token in ids)
