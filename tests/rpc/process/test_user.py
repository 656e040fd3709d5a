"""A process that runs as a number: no name, no home, as containers like to have it."""

import getpass
import os
import pwd
import shutil
import subprocess
import sys
import tempfile

import pytest

from monitor.errors import ConfigurationError
from monitor.rpc.process.user import name_user
from monitor.settings import Settings, cache_folder, decision_folder

NOBODY = 54_321
NAMES = ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "XDG_STATE_HOME", "STATE_DIRECTORY")
AS_NOBODY = ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"]


@pytest.fixture
def unknown(monkeypatch, tmp_path):
    """This user has no entry in the list of users, and its environment no home."""

    def missing(user):
        raise KeyError(user)

    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", missing)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "environ", os.environ)
    yield tmp_path
    for name in NAMES:
        os.environ.pop(name, None)


def test_libraries_find_a_name_and_a_private_home(unknown):
    home = name_user()
    assert home == unknown / f"sae-monitor-{os.getuid()}"
    assert home.stat().st_mode & 0o777 == 0o700
    assert getpass.getuser() == f"uid{os.getuid()}"
    assert os.path.expanduser("~/.cache") == str(home / ".cache")
    assert name_user() is None, "it has a home now"
    del os.environ["HOME"]
    assert name_user() == home, "caches are found again"


@pytest.mark.parametrize("made", ["link", "file", "open to all"])
def test_what_somebody_else_has_put_there_is_not_used(unknown, made):
    place = unknown / f"sae-monitor-{os.getuid()}"
    if made == "link":
        (unknown / "elsewhere").mkdir()
        place.symlink_to(unknown / "elsewhere")
    elif made == "file":
        place.touch()
    else:
        place.mkdir()
        place.chmod(0o777)
    home = name_user()
    assert home not in (None, place)
    assert home.stat().st_mode & 0o777 == 0o700


def test_the_decision_log_is_not_kept_in_a_temporary_folder_without_a_word(unknown):
    with pytest.raises(ConfigurationError, match=r"has no home to keep the log in; give a folder"):
        decision_folder(Settings(), 50051)
    assert decision_folder(Settings(decision_log="off"), 50051) is None
    os.environ["XDG_STATE_HOME"] = "state"
    with pytest.raises(ConfigurationError, match="no home"):
        decision_folder(Settings(), 50051)


def test_nor_are_caches_where_nothing_was_chosen_for_them(unknown, monkeypatch):
    for name in ("SAE_MONITOR_CACHE", "CACHE_DIRECTORY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="no home; give a folder with SAE_MONITOR_CACHE"):
        cache_folder()
    home = name_user()
    assert cache_folder() == home / ".cache" / "sae-monitor"


def test_a_user_with_a_home_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    before = dict(os.environ)
    assert name_user() is None
    assert dict(os.environ) == before


def as_nobody(*command):
    """Run a command of ours as a user without name and home, in a namespace of users."""
    if shutil.which("unshare") is None or subprocess.run([*AS_NOBODY, "true"], check=False).returncode:
        pytest.skip("no right to make a namespace of users")
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    return subprocess.run(
        [*AS_NOBODY, sys.executable, "-m", "monitor", *command],
        env=clean,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_a_server_says_what_to_set_and_other_commands_work():
    refused = as_nobody("serve", "--pair", "tiny", "--metrics-listen=127.0.0.1:0")
    assert refused.returncode == 2
    assert f"runs as user {NOBODY}, which has no home" in refused.stderr
    assert "Traceback" not in refused.stderr
    scored = as_nobody("score", "--pair", "tiny", "hello there")
    assert scored.returncode == 0, scored.stderr
    assert "Traceback" not in scored.stderr
