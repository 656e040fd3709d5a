"""The rules of the house that a program can check: layers, names, sizes of folders, words in docstrings."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "monitor"
TOP = {"pyproject.toml", "README.md", "LICENSE", "monitor", "protos", "policies", "tests", "deploy"}
MOST_MODULES = 18
GERUNDS = {"training", "pooling", "tracing", "learning"}
"""Nouns of the field that end like a gerund; `dictionary_learning` is the name of a format."""
BEFORE_TORCH = "monitor.rpc.process.allocator"
"""Stands alone, because it runs before torch is imported."""
WITHOUT_TEST = {
    "monitor/model/tap/span.py": "a record without behaviour",
    "monitor/rpc/ports.py": "protocols only; mypy checks that what stands in for them fits",
}
"""Modules that no test file stands beside, each with the reason."""


def modules() -> Iterator[Path]:
    """Every module that people wrote; what protoc wrote is left out."""
    return (path for path in sorted(PACKAGE.rglob("*.py")) if "v1" not in path.relative_to(PACKAGE).parts)


def trees() -> Iterator[tuple[str, ast.Module]]:
    """Every module by its path, parsed."""
    return ((str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))) for path in modules())


def test_the_import_contracts_hold():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]


def test_nothing_else_stands_at_the_top_level():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    found = {name.split("/")[0] for name in listed.stdout.splitlines()}
    assert {name for name in found if not name.startswith(".")} <= TOP


def test_no_folder_is_crowded():
    counts = Counter(path.parent for path in modules() if path.name not in ("__init__.py", "__main__.py"))
    crowded = {str(folder.relative_to(ROOT)): n for folder, n in counts.items() if n > MOST_MODULES}
    crowded.pop("monitor/dictionary/formats", None)  # one module for each family of checkpoints
    assert not crowded, f"more than {MOST_MODULES} modules: make a room for some of them"


def test_modules_are_nouns():
    found = [
        p for p in modules() if re.search(r"[a-z]{3}ing$", p.stem) and p.stem.split("_")[-1] not in GERUNDS
    ]
    assert not found, "name a module after what it owns"


def test_a_class_name_means_one_thing():
    places: dict[str, list[str]] = {}
    for path, tree in trees():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(path)
    assert not {name: paths for name, paths in places.items() if len(paths) > 1}


def test_every_module_has_its_test_beside_it():
    """`monitor/a/b.py` is tested by `tests/a/test_b.py`, so that whoever changes a module knows where to look."""
    there = {
        str(path.relative_to(ROOT)): ROOT / "tests" / path.relative_to(PACKAGE).with_name(f"test_{path.name}")
        for path in modules()
        if path.name not in ("__init__.py", "__main__.py")
    }
    lacking = {module for module, test in there.items() if not test.is_file()}
    assert not lacking - WITHOUT_TEST.keys(), "write the test of a module where its path says"
    assert not WITHOUT_TEST.keys() - lacking, "these are gone or have a test: take them off the list"
    hollow = {
        str(test) for test in there.values() if test.is_file() and "def test_" not in test.read_text("utf-8")
    }
    assert not hollow, "a test file without a test"


@pytest.mark.slow
def test_docstrings_say_what_a_thing_is():
    bad = []
    tests = (
        (str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8")))
        for path in (ROOT / "tests").rglob("*.py")
    )
    for path, tree in chain(trees(), tests):
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node) or ""
                if re.search(r"\bDoes not know\b|^Knows ", text, re.MULTILINE):
                    bad.append(f"{path}:{getattr(node, 'lineno', 1)}")
    assert not bad, "boundaries are the import contracts' business; say what it owns or does"


def test_small_modules_are_shared():
    importers: Counter[str] = Counter()
    names = {str(p.relative_to(ROOT))[:-3].replace("/", "."): p for p in modules()}
    for path, tree in trees():
        own = path[:-3].replace("/", ".")
        seen = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                seen |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        importers.update(name for name in seen if name in names and name != own)
    small = [
        name
        for name, path in names.items()
        if importers[name] == 1
        and name != BEFORE_TORCH
        and path.name not in ("__init__.py", "__main__.py")
        and len(path.read_text(encoding="utf-8").splitlines()) < 60
        and not name.startswith(("monitor.dictionary.formats.", "monitor.cli."))
    ]
    assert not small, "a small module with one importer belongs to its importer"


def test_the_map_names_every_folder_and_nothing_that_is_gone():
    text = (PACKAGE / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert not [link for link in links if not (PACKAGE / link).exists()]
    folders = {path.parent.relative_to(PACKAGE).as_posix() for path in modules()} - {"."}
    told = {"telemetry": ("telemetry/metrics", "telemetry/decisions", "telemetry/tracing")}
    missing = {
        f
        for f in folders
        if f"({f})" not in text and not f.startswith(("cli/", "lab/", "pairs/", "recipes/"))
    }
    assert missing - {name for names in told.values() for name in names} == set()
