"""What is built of this tree: the wheel that people install and the source archive that distributions build from."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import monitor
from tests.deploy.tools import DEPLOY, run

ROOT = Path(__file__).parents[1]
MEGABYTE = 1_000_000
WHEEL_LIMIT = 10 * MEGABYTE
"""Unpacked. With the base's libraries (49 MB) and the bytecode, an environment then stays below 80 MB."""
PAIRS_LIMIT = 80 * MEGABYTE
NOT_SHIPPED = {
    "__pycache__",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".import_linter_cache",
    "dist",
    "build",
}


def built(kind, source, target):
    """The one file that hatchling makes of a source tree."""
    target.mkdir()
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = target.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source archive, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(built("sdist", ROOT, folder / "dist")) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"sae_monitor-{monitor.__version__}"


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel that the source archive gives."""
    return zipfile.ZipFile(built("wheel", sdist, tmp_path_factory.mktemp("wheel") / "dist"))


@pytest.fixture(scope="module")
def pairs(sdist, tmp_path_factory):
    """The wheel with the data of the pairs."""
    folder = tmp_path_factory.mktemp("pairs") / "dist"
    return zipfile.ZipFile(built("wheel", sdist / "monitor" / "pairs", folder))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that holds what pip would put into site-packages."""
    folder = tmp_path_factory.mktemp("installed")
    wheel.extractall(folder)
    return folder


def command(installed, cwd, *arguments):
    """A run of the installed command line, away from the checkout."""
    return subprocess.run(
        [sys.executable, "-m", "monitor", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(installed), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def files(folder):
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if NOT_SHIPPED.isdisjoint(path.parts) and path.suffix != ".pyc"}


@pytest.mark.slow
def test_the_source_archive_is_whole(sdist):
    for name in ("monitor", "tests", "deploy", "protos", "policies", ".ci"):
        assert files(sdist / name) == files(ROOT / name), name
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        assert (sdist / name).read_bytes() == (ROOT / name).read_bytes()


@pytest.mark.slow
def test_the_tests_of_the_source_archive_are_found_there(sdist):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"],
        cwd=sdist,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert int(re.search(r"(\d+) tests collected", done.stdout)[1]) > 1000


def test_the_wheel_holds_what_runs_and_no_more(wheel):
    names = wheel.namelist()
    top = {name.split("/")[1] for name in names if name.startswith("monitor/")}
    assert {"bench", "recipes", "tests"}.isdisjoint(top)
    assert {"py.typed", "NOTICE.md", "policies", "pairs", "v1", "deploy_files"} <= top
    assert sum(info.file_size for info in wheel.infolist()) < WHEEL_LIMIT
    assert not [name for name in names if name.endswith(".png") and "/policies/" not in name]
    assert not [name for name in names if name.endswith(".svg") and "/pairs/" in name]
    (licence,) = [name for name in names if name.endswith("licenses/LICENSE")]
    assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()


def data_of(folder):
    """The files of the pairs that are neither code nor pictures."""
    found = {name for name in files(folder) if "/model/" in name or "/dictionary/" in name}
    return {f"monitor/pairs/{name}" for name in found if not name.endswith((".png", ".svg"))}


def test_weights_and_dictionaries_are_a_wheel_of_their_own(wheel, pairs):
    data = data_of(ROOT / "monitor" / "pairs")
    assert len(data) > 10
    names = {name for name in pairs.namelist() if "dist-info/" not in name}
    assert names == data | {"monitor/pairs/LICENSE", "monitor/pairs/NOTICE.md"}
    assert names.isdisjoint(wheel.namelist())
    assert sum(info.file_size for info in pairs.infolist()) < PAIRS_LIMIT
    assert f"sae_monitor_pairs-{monitor.__version__}.dist-info/METADATA" in pairs.namelist()


@pytest.mark.slow
def test_both_wheels_together_open_a_pair(installed, pairs, tmp_path):
    words = ("score", "--pair", "tiny", "a calm day", "--policies", installed / "monitor" / "policies")
    alone = command(installed, tmp_path, *words)
    assert (alone.returncode, alone.stdout) == (2, "")
    assert "`pip install sae-monitor-pairs` gets it" in " ".join(alone.stderr.split())
    both = tmp_path / "both"
    shutil.copytree(installed, both)
    pairs.extractall(both)
    done = command(both, tmp_path, *words)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_metadata_is_whole(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith("dist-info/METADATA")]
    found = Parser().parsestr(wheel.read(name).decode())
    assert found["License-Expression"] == "Apache-2.0"
    assert found.get_all("License-File") == ["LICENSE", "monitor/NOTICE.md"]
    assert found["Requires-Python"]
    assert found["Keywords"]
    assert "Typing :: Typed" in found.get_all("Classifier")
    base = [line for line in found.get_all("Requires-Dist") if "extra ==" not in line]
    assert not [line for line in base if line.startswith(("torch", "numpy", "transformers", "scikit"))]
    assert {"serve", "fit", "test"} <= set(found.get_all("Provides-Extra"))


@pytest.mark.slow
def test_installed_commands_find_what_they_need(installed, tmp_path):
    assert command(installed, tmp_path, "--version").stdout == f"sae-monitor {monitor.__version__}\n"
    checked = command(installed, tmp_path, "policy", "check", installed / "monitor" / "policies")
    assert checked.returncode == 0, checked.stderr
    where = "import monitor.rpc.assembly as a; print(a.bundled_policies())"
    environment = os.environ | {"PYTHONPATH": str(installed)}
    found = subprocess.run(
        [sys.executable, "-c", where],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(installed / "monitor" / "policies")


def test_an_installed_package_exports_what_monitors_it(installed, tmp_path):
    done = command(
        installed, tmp_path, "deploy", "export", "out", "--runbook-url", "https://example.org/runbook"
    )
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert done.stdout.count("out/") == len(files(out))
    assert "rule_files" in done.stdout
    for name in files(out):
        ours = (DEPLOY / name).read_text().replace("deploy/runbook.md", "https://example.org/runbook")
        assert (out / name).read_text() == ours, name
    for name in (
        *("alertmanager", "envoy", "grafana/dashboards", "grafana/provisioning", "nemo"),
        *("prometheus/rules", "systemd"),
    ):
        assert files(out / name) == files(DEPLOY / name), name
    assert "deploy/" not in "".join((out / name).read_text() for name in files(out) if name.endswith("yml"))
    run("promtool", "check", "config", out / "prometheus" / "prometheus.yml")
    run("amtool", "check-config", out / "alertmanager" / "alertmanager.yml")


def test_the_licences_of_the_training_texts_are_named():
    """Every source of text in the pair's README stands in the notices."""
    table = (ROOT / "monitor" / "pairs" / "tiny" / "README.md").read_text()
    notices = (ROOT / "monitor" / "NOTICE.md").read_text()
    sources = set(re.findall(r"github\.com/[\w-]+/[\w-]+", table))
    assert len(sources) > 10
    assert {source for source in sources if source not in notices} == set()
