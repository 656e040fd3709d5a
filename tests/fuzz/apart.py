"""One target in this process, for the driver: `python -m tests.fuzz.apart TARGET CASES SEED FILE`."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import structlog
import torch

from tests.fuzz.driver import fuzz
from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    name, cases, seed, out = sys.argv[1:]
    torch.set_num_threads(1)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    Path(out).write_bytes(pickle.dumps(fuzz(TARGETS[name](), int(cases), seed=int(seed))))
