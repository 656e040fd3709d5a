"""What the base installation runs, where nothing that only an extra installs can be imported; and what it says then."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from monitor.cli.lazy import EXTRAS
from tests.cli.scripted import serving
from tests.rpc.conftest import serving as serving_fakes

ROOT = Path(__file__).parents[2]
WITHOUT = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in %r:
            raise ModuleNotFoundError(f"No module named {name}", name=name)
sys.meta_path.insert(0, Absent())
"""
MAIN = "import sys; from monitor.__main__ import main; sys.argv[0] = 'sae-monitor'; main()"
HEAVY = [package for packages in EXTRAS.values() for package in packages]


def base(*arguments, absent=HEAVY, code=MAIN, **environment):
    """A run of the command line in a Python that lacks some packages."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT % (sorted(absent),) + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": "200"} | environment,
    )


def requirements():
    """The distributions of the base and of each extra, extras of extras not followed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(lines):
        return {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in lines}

    return names(project["dependencies"]), {
        extra: names(lines) - {"sae-monitor"} for extra, lines in project["optional-dependencies"].items()
    }


def test_every_package_that_these_extras_install_is_known_by_its_import():
    _, extras = requirements()
    owners = packages_distributions()
    for extra, packages in EXTRAS.items():
        distributions = {owner.lower().replace("_", "-") for package in packages for owner in owners[package]}
        assert distributions == extras[extra]


@pytest.mark.slow
def test_the_base_names_what_it_imports_and_nothing_else():
    """Every distribution of the base is imported by what the base runs, or is a part of one that is."""
    needed, _ = requirements()
    owners = packages_distributions()
    code = (
        "import importlib, sys\n"
        "for name in ('client', 'cli.policy.folder', 'cli.decisions.read', 'policy.files.lint', 'cli.deploy'):\n"
        "    importlib.import_module('monitor.' + name)\n"
        "print(*{name.partition('.')[0] for name in sys.modules} | {'google.rpc'} & set(sys.modules))"
    )
    done = base(code=code)
    assert done.returncode == 0, done.stderr
    imported = {
        owner.lower().replace("_", "-") for name in done.stdout.split() for owner in owners.get(name, ())
    }
    assert needed - imported <= {"googleapis-common-protos"}, "not imported"
    assert "google.rpc" in done.stdout.split()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["serve", "--help"],
        ["score", "--help"],
        ["generate", "--help"],
        ["policy", "--help"],
        ["policy", "check", "policies"],
        ["policy", "check", "--help"],
        ["policy", "schema"],
        ["policy", "reload", "--help"],
        ["decisions", "--help"],
        ["decisions", "watch", "--help"],
        ["decisions", "filter", "--help"],
        ["features", "--help"],
        ["dictionary", "--help"],
        ["dictionary", "train", "--help"],
        ["deploy", "export", "--help"],
        ["token", "new", "gateway"],
    ],
    ids=" ".join,
)
def test_commands_of_the_base(arguments):
    done = base(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.slow
def test_the_decision_log_is_read_in_the_base(tmp_path):
    with serving_fakes(decision_log=tmp_path, decision_log_records="all") as served:
        served.score("calm")
        served.score("lie")
    for arguments in (["tail"], ["tail", "--json"], ["filter", "--action", "alert"], ["verify"]):
        done = base("decisions", *arguments, "--log", tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout


@pytest.mark.slow
def test_a_running_server_is_asked_from_the_base():
    with serving() as (address, _, _):
        scored = base("score", "I want more power", "--connect", address, "--json")
        assert scored.returncode == 1, scored.stderr
        assert json.loads(scored.stdout)["verdict"]["matched"]
        written = base("generate", "hello", "--connect", address)
        assert written.returncode in (0, 1), written.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["serve"], "serve"),
        (["demo"], "serve"),
        (["guard", "--upstream", "http://127.0.0.1:8000"], "guard"),
        (["score", "hello"], "serve"),
        (["policy", "test", "policies"], "fit"),
        (["policy", "explain", "policies", "hello"], "fit"),
        (["policy", "fit", "policies"], "fit"),
        (["features", "search", "hello"], "serve"),
        (["dictionary", "info", "monitor/pairs/tiny/dictionary"], "serve"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_needs_an_extra_says_so_in_one_line(arguments, extra):
    done = base(*arguments)
    assert done.returncode == 2, (done.stdout, done.stderr)
    command = " ".join(arguments[: 2 if arguments[0] in ("policy", "features", "dictionary") else 1])
    assert (
        done.stderr == f"error: `{command}` needs the extra `{extra}`: pip install 'sae-monitor[{extra}]'\n"
    )


@pytest.mark.slow
def test_the_extra_for_learning_is_named_where_only_that_is_missing():
    done = base("policy", "fit", "policies", absent=EXTRAS["fit"])
    assert done.stderr == "error: `policy fit` needs the extra `fit`: pip install 'sae-monitor[fit]'\n"


def test_a_module_that_no_extra_installs_is_not_explained_away():
    done = base("policy", "check", "policies", absent=["ruamel"])
    assert done.returncode == 2
    assert "ModuleNotFoundError" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["policy", "--help"],
        ["policy", "check", "policies"],
        ["policy", "schema"],
        ["decisions", "tail", "--log", "."],
        ["serve", "--help"],
        ["score", "hello", "--connect", "127.0.0.1:1"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_loaded(arguments):
    loaded = [package for package in HEAVY if not package.startswith("grpc_")]  # grpc looks for those itself
    code = (
        "import atexit, sys; from monitor.__main__ import main\n"
        f"heavy = {loaded!r}\n"
        "atexit.register(lambda: print('loaded:', *(m for m in heavy if m in sys.modules), file=sys.stderr))\n"
        "main()"
    )
    done = base(*arguments, absent=[], code=code)
    assert done.stderr.splitlines()[-1] == "loaded:"


@pytest.mark.parametrize("module", ["monitor.client", "monitor.client.aio", "monitor.client.requests"])
def test_the_client_brings_in_grpc_and_protobuf_alone(module):
    absent = {*HEAVY, "pydantic", "pydantic_settings", "ruamel", "typer", "rich", "safetensors"}
    done = base(absent=absent, code=f"import sys, {module}; print('google.protobuf' in sys.modules)")
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
