"""Settings from flags, environment and file, and what is said about wrong ones."""

import os
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from monitor import settings as module
from monitor.errors import ConfigurationError
from monitor.settings import PREFIX, Settings, load_settings, split_address


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a settings file and name it in the environment."""

    def write(text):
        path = tmp_path / "settings.yaml"
        path.write_text(text)
        monkeypatch.setenv("SAE_MONITOR_SETTINGS", str(path))
        return path

    return write


def test_without_anything_it_is_the_demo_on_this_machine():
    settings = load_settings()
    assert settings.model is None
    assert settings.listen.startswith("127.0.0.1:")
    assert settings.metrics_listen.startswith("127.0.0.1:")


def test_flags_win_over_environment_over_file_over_default(written, monkeypatch):
    written("listen: 127.0.0.1:1\nqueue_size: 1\nlayer: 1\n")
    monkeypatch.setenv("SAE_MONITOR_LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("SAE_MONITOR_QUEUE_SIZE", "2")
    settings = load_settings({"listen": "127.0.0.1:3", "queue_size": None})
    assert (settings.listen, settings.queue_size, settings.layer) == ("127.0.0.1:3", 2, 1)
    assert settings.max_concurrent_calls == 256


def test_a_flag_names_the_file_too(tmp_path):
    path = tmp_path / "other.yaml"
    path.write_text("grace_seconds: 3\n")
    assert load_settings({"settings": path}).grace_seconds == 3.0


def test_settings_cannot_be_changed():
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.listen = "0.0.0.0:1"


def test_empty_variables_and_empty_files_say_nothing(written, monkeypatch):
    written("")
    monkeypatch.setenv("SAE_MONITOR_DEVICE", "")
    assert load_settings().device == "auto"


def test_variables_that_kubernetes_sets_for_a_service_do_no_harm(monkeypatch):
    before = load_settings()
    monkeypatch.setenv("SAE_MONITOR_PORT", "tcp://10.0.0.1:50051")
    monkeypatch.setenv("SAE_MONITOR_SERVICE_HOST", "10.0.0.1")
    assert load_settings() == before


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"listen": "50051"}, "--listen: found '50051': write HOST:PORT"),
        ({"metrics_listen": "a:99999"}, "--metrics-listen: found 'a:99999'"),
        ({"grace_seconds": float("nan")}, "--grace-seconds: found nan"),
        ({"layer": -1}, "--layer: found -1"),
        ({"dtype": "int8"}, "--dtype: found 'int8': Input should be 'auto', 'float32'"),
        ({"nonsense": 1}, "nonsense: there is no such setting; there are"),
    ],
)
def test_wrong_flags_are_named(flags, said):
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        load_settings(flags)


def test_a_wrong_variable_is_named_as_one(monkeypatch):
    monkeypatch.setenv("SAE_MONITOR_MAX_MESSAGE_BYTES", "many")
    with pytest.raises(ConfigurationError, match="SAE_MONITOR_MAX_MESSAGE_BYTES: found 'many'"):
        load_settings()


def test_every_wrong_setting_is_named_at_once():
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"layer": -1, "queue_size": 0})
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listen: [", "not YAML"),
        ("- a\n- b\n", "write one `name: value` per line"),
        ("1: 2\n", "write one `name: value` per line"),
        ("lisen: 127.0.0.1:1\n", "lisen: there is no such setting"),
        ("queue_size: 0\n", "settings file: queue_size: found 0"),
        ("settings: other.yaml\n", "cannot name another"),
        ("a: &a [x]\nb: *a\nmodel: {<<: 3}\n", "settings.yaml"),
        ("#" + "x" * (1 << 20), "larger than"),
    ],
)
def test_wrong_files(written, text, said):
    written(text)
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        load_settings()


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        load_settings({"settings": tmp_path / "absent.yaml"})


def test_bytes_that_are_not_text(tmp_path):
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="not YAML"):
        load_settings({"settings": path})


def test_every_setting_is_documented_beneath_itself():
    source = Path(module.__file__).read_text()
    for name in Settings.model_fields:
        assert re.search(rf"\n    {name}: [^\n]+\n    \"\"\"", source), name


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:5", ("::1", 5)),
        ("a-b.example:65535", ("a-b.example", 65535)),
    ],
)
def test_addresses(address, parts):
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["", ":1", "a:", "::1:5", "a:65536", "a b:1", "a:-1", "http://a:1"])
def test_wrong_addresses(address):
    with pytest.raises(ValueError, match="HOST:PORT"):
        split_address(address)
