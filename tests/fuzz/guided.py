"""Coverage-guided fuzzing of one target through atheris (libFuzzer), from the extra `fuzz`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.fuzz.target import Target


def guided(target: Target, seconds: int) -> None:
    """Run until something raises, or for so many seconds. Ends the process, as libFuzzer does."""
    import atheris

    # What is imported already is instrumented function by function.
    names = [name for name in sys.modules if name.startswith("monitor.")]
    for name in names:
        for value in list(vars(sys.modules[name]).values()):
            if getattr(value, "__module__", None) == name and callable(value) and hasattr(value, "__code__"):
                setattr(sys.modules[name], value.__name__, atheris.instrument_func(value))
    with target.opened(), tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(target.corpus()):
            (Path(folder) / str(number)).write_bytes(data)
        arguments = [sys.argv[0], folder, "-timeout=30", "-rss_limit_mb=4096", "-print_final_stats=1"]
        atheris.Setup(
            [*arguments, *([f"-max_total_time={seconds}"] if seconds else [])],
            lambda data: _tried(target, data),
        )
        atheris.Fuzz()


def _tried(target: Target, data: bytes) -> None:
    if data:
        target.run(data)
