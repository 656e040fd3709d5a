"""Python's collector of cycles, told what a server keeps for as long as it runs."""

from __future__ import annotations

import gc


def freeze_heap() -> None:
    """Collect once, and leave out of later collections what is alive now. Call it once everything is loaded.

    A full collection looks at every object, also at those of torch, transformers and vLLM that never die, and stops all
    threads meanwhile. Callers see that as single tokens that come late.
    """
    gc.collect()
    gc.freeze()
