"""Time and memory of watching a few features of a very large dictionary: `python -m monitor.bench.dictionary`.

A JumpReLU dictionary in bfloat16 is written in two layouts, and each is opened in its own process. One layout stores
the encoder as `[width, features]` (SAELens), the other the decoder (Llama Scope). Without --fill the files are sparse
and take no disk space, which measures everything but the disk. With --fill they hold numbers, and they are dropped from
the page cache before each run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(add_completion=False)

_MEASURE = """
import json, pathlib, random, re, sys, time
import psutil, torch
from monitor.dictionary.bundle import load_dictionary
from monitor.model.tap.bank import FeatureBank
before = psutil.Process().memory_info().rss
started = time.perf_counter()
sae = load_dictionary(sys.argv[1]).autoencoder
loaded = time.perf_counter()
watched = random.Random(0).sample(range(sae.features), int(sys.argv[2]))
FeatureBank(sae, torch.ones(sae.features), watched)
ready = time.perf_counter()
# Not ru_maxrss, which begins at what the parent had when it forked.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
print(json.dumps({"open": loaded - started, "watch": ready - loaded, "megabytes": (peak * 1024 - before) / 1e6}))
"""
_BFLOAT16, _FLOAT32 = 2, 4


@app.command()
def main(
    features: Annotated[int, typer.Option(help="Number of features of the dictionary.")] = 1 << 20,
    width: Annotated[int, typer.Option(help="Width of the residual stream.")] = 4096,
    watch: Annotated[
        list[int] | None,
        typer.Option(help="Number of features to watch. Repeatable. Default: 1, 16, 100 and 1000."),
    ] = None,
    fill: Annotated[
        bool, typer.Option("--fill", help="Fill the files with numbers, so that they take disk space.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Folder for the files. Default: the system's temporary folder.")
    ] = None,
) -> None:
    """Measure the seconds to open the dictionary and to watch features, and the peak memory that both add."""
    table = Table("layout", "file", "watched", "open, s", "watch, s", "memory added, MB", box=None)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        for name, write in (("encoder [d, n]", _saelens), ("decoder [d, n]", _llama_scope)):
            written = Path(made) / name.split()[0]
            weights = write(written, features, width)
            if fill:
                _filled(weights)
            for count in watch or [1, 16, 100, 1000]:
                _forget(weights)
                found = _measured(written, count)
                numbers = (f"{found['open']:.2f}", f"{found['watch']:.2f}", f"{found['megabytes']:.0f}")
                table.add_row(name, f"{weights.stat().st_size / 1e9:.1f} GB", str(count), *numbers)
            weights.unlink()
    Console().print(table)


def _measured(folder: Path, count: int) -> dict[str, float]:
    command = [sys.executable, "-c", _MEASURE, str(folder), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _saelens(folder: Path, features: int, width: int) -> Path:
    folder.mkdir()
    config = {"architecture": "jumprelu", "d_in": width, "d_sae": features, "apply_b_dec_to_input": False}
    (folder / "cfg.json").write_text(json.dumps({**config, "metadata": {}}))
    sizes = {"W_enc": (width, features), "W_dec": (features, width), "b_enc": (features,), "b_dec": (width,)}
    return _holes(folder / "sae_weights.safetensors", sizes | {"threshold": (features,)})


def _llama_scope(folder: Path, features: int, width: int) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    hook = "blocks.0.hook_resid_post"
    config = {"hook_point_in": hook, "hook_point_out": hook, "act_fn": "jumprelu", "jump_relu_threshold": 1.0}
    (folder / "hyperparams.json").write_text(json.dumps({**config, "norm_activation": "none"}))
    matrices = {"encoder.weight": (features, width), "decoder.weight": (width, features)}
    vectors = {"encoder.bias": (features,), "decoder.bias": (width,)}
    return _holes(folder / "checkpoints" / "final.safetensors", {**matrices, **vectors})


def _holes(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A safetensors file of zeros that takes no disk space: matrices in bfloat16, vectors in float32."""
    header: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        start, matrix = end, len(shape) == 2
        end += shape[0] * (shape[1] * _BFLOAT16 if matrix else _FLOAT32)
        header[name] = {"dtype": "BF16" if matrix else "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


def _filled(path: Path) -> None:
    """Overwrite everything after the header with numbers."""
    with path.open("r+b") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        file.seek(start)
        for part in _noise(path.stat().st_size - start):
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def _noise(size: int) -> Iterator[bytes]:
    """Bytes of bfloat16 numbers between 0 and 1, which are small and finite numbers also when read as float32."""
    block = torch.rand(1 << 23).bfloat16().view(torch.uint8).numpy().tobytes()
    for done in range(0, size, len(block)):
        yield block[: size - done]


def _forget(path: Path) -> None:
    """Drop the file from the page cache, where the operating system allows it."""
    if hasattr(os, "posix_fadvise"):
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


if __name__ == "__main__":
    app()
