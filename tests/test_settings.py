"""Settings from flags, environment and file, and what is said about wrong ones."""

import json
import os
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from monitor import settings as module
from monitor.errors import ConfigurationError
from monitor.settings import (
    PREFIX,
    Settings,
    all_settings,
    load_client_settings,
    load_settings,
    split_address,
)


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
        ({"dtype": "int8"}, "--dtype: found 'int8': write 'auto', 'float32'"),
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
        (
            "queue_size: 0\n",
            "settings.yaml:1: queue_size: found 0: write a number greater than or equal to 1",
        ),
        ("settings: other.yaml\n", "cannot name another"),
        ("a: &a [x]\nb: *a\nmodel: {<<: 3}\n", "settings.yaml"),
        ("#" + "x" * (1 << 20), "larger than"),
        (
            "listen: 127.0.0.1:1\nlisen: 127.0.0.1:1\n",
            "settings.yaml:2: lisen: there is no such setting; did you mean",
        ),
        ("\n\nlog_level: loud\n", "settings.yaml:3: log_level: found 'loud': write 'debug', 'info'"),
        ("layer: 1.5\n", "settings.yaml:1: layer: found 1.5: write a whole number"),
        ("insecure_listen: perhaps\n", "found 'perhaps': write true or false"),
        ("model: 7\n", "settings.yaml:1: model: found 7: write a text"),
        ("policies: no\n", "settings.yaml:1: policies: found 'no': write a name, or leave it out; ./no if"),
        ("callers: true\n", "settings.yaml:1: callers: found True: write a name, or leave it out"),
        (
            "dictionary: '~/sae'\n",
            "settings.yaml:1: dictionary: found '~/sae': write it out: `~` and variables",
        ),
        (
            "decision_log_masks:\n  a: x\n  b: '['\n",
            "settings.yaml:3: decision_log_masks.b: found '[': write a regular",
        ),
        ("decision_log_masks: 5\n", "settings.yaml:1: decision_log_masks: found 5: write a mapping"),
        ("a: 1\n\tb: 2\n", "settings.yaml:2: not YAML"),
        ("listen: a:1\nlisten: b:1\n", "settings.yaml:2: not YAML: found duplicate key"),
        ("\na: *x\n", "settings.yaml:2: aliases are refused"),
        ("a: &x [*x]\n", "settings.yaml:1: anchors are refused"),
        ("a: &a [x, x]\nb: &b [*a, *a]\n", "settings.yaml:1: anchors are refused"),
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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "SAE_MONITOR_LISEN",
            "SAE_MONITOR_LISEN: there is no such variable; did you mean SAE_MONITOR_LISTEN?",
        ),
        ("SAE_MONITOR_DECISIONLOG", "did you mean SAE_MONITOR_DECISION_LOG?"),
        ("SAE_MONITOR_RELOAD_SECOND", "did you mean SAE_MONITOR_RELOAD_SECONDS?"),
        ("SAE_MONITOR_CLIENT_TOKN", "did you mean SAE_MONITOR_CLIENT_TOKEN?"),
        (
            "sae_monitor_lisen",
            "sae_monitor_lisen: there is no such variable; did you mean SAE_MONITOR_LISTEN?",
        ),
        ("SAE_MONITOR_", "there is no such variable; there are SAE_MONITOR_"),
        ("SAE_MONITOR_VERSION", "SAE_MONITOR_VERSION: there is no such variable"),
        (
            "SAE_MONITR_LISTEN",
            "SAE_MONITR_LISTEN: there is no such variable; did you mean SAE_MONITOR_LISTEN?",
        ),
        ("SAEMONITOR_QUEUE_SIZE", "did you mean SAE_MONITOR_QUEUE_SIZE?"),
    ],
)
@pytest.mark.parametrize("load", [load_settings, load_client_settings])
def test_a_variable_that_begins_as_ours_and_is_none_of_ours_is_named(monkeypatch, name, said, load):
    monkeypatch.setenv(name, "127.0.0.1:1")
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        load()


@pytest.mark.parametrize("name", ["SAE_FOLDER", "SAELENS_CACHE", "MONITOR_LISTEN", "LISTEN"])
def test_variables_of_other_programs_are_left_alone(monkeypatch, name):
    monkeypatch.setenv(name, "x")
    load_settings()


def test_misspelt_and_wrong_variables_are_told_together(monkeypatch):
    monkeypatch.setenv("SAE_MONITOR_LISEN", "a:1")
    monkeypatch.setenv("SAE_MONITOR_LAYER", "x")
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"queue_size": 0})
    assert len(str(caught.value).splitlines()) == 3


def test_variables_in_lower_case_count_and_are_named_as_they_were_written(monkeypatch):
    monkeypatch.setenv("sae_monitor_layer", "3")
    assert load_settings().layer == 3
    monkeypatch.setenv("sae_monitor_layer", "-3")
    with pytest.raises(ConfigurationError, match="sae_monitor_layer: found '-3'"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_PORT", "50051"),
        ("SERVICE_PORT_GRPC", "50051"),
        ("PORT", "tcp://10.0.0.1:50051"),
        ("PORT_50051_TCP", "tcp://10.0.0.1:50051"),
        ("PORT_50051_TCP_ADDR", "10.0.0.1"),
        ("GUARD_SERVICE_HOST", "10.0.0.1"),
        ("GUARD_PORT", "udp://10.0.0.1:50051"),
        ("GUARD_PORT_9464_TCP_PROTO", "tcp"),
    ],
)
def test_every_variable_of_a_kubernetes_service_is_left_alone(monkeypatch, name, value):
    monkeypatch.setenv(PREFIX + name, value)
    load_settings()


def test_a_port_that_an_operator_set_is_not_one_of_kubernetes(monkeypatch):
    monkeypatch.setenv("SAE_MONITOR_PORT", "50051")
    with pytest.raises(ConfigurationError, match="SAE_MONITOR_PORT: there is no such variable"):
        load_settings()


NAMED = [
    name
    for name, setting in ((s.name, s) for s in all_settings())
    if setting.values in ("FILE", "FOLDER", "PLACE")
]


@pytest.mark.parametrize(
    "value",
    ["false", "True", "no", "none", "NULL", "0", " off ", "' '", '"/log"', "~/log", "$HOME/x", "/a/${B}"],
)
@pytest.mark.parametrize("name", [*NAMED, "decision_log", "model"])
def test_what_is_no_name_of_a_file_makes_none(monkeypatch, tmp_path, name, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PREFIX + name.upper(), value)
    with pytest.raises(ConfigurationError, match=f"^SAE_MONITOR_{name.upper()}: found .*: write") as caught:
        load_settings()
    assert len(str(caught.value).splitlines()) == 1
    assert ("To log no decisions, write off" in str(caught.value)) == (name == "decision_log")


def test_a_folder_may_be_called_so_all_the_same(monkeypatch, tmp_path):
    monkeypatch.setenv("SAE_MONITOR_DECISION_LOG", "./false")
    assert load_settings().decision_log == "./false"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").mkdir()
    assert load_settings({"policies": Path("none")}).policies == Path("none")


@pytest.mark.parametrize(
    ("value", "meant"), [("off", "off"), ("OFF", "off"), ("Auto", "auto"), ("/off", "/off")]
)
def test_the_words_of_the_decision_log(monkeypatch, value, meant):
    monkeypatch.setenv("SAE_MONITOR_DECISION_LOG", value)
    assert load_settings().decision_log == meant


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{", "SAE_MONITOR_DECISION_LOG_MASKS: found '{': not JSON (Expecting property name"),
        ("card=[0-9]{16}", "not JSON (Expecting value at character 1); write an object, such as"),
        ("[1]", "SAE_MONITOR_DECISION_LOG_MASKS: found [1]: write a mapping"),
        ('{"card": "["}', "SAE_MONITOR_DECISION_LOG_MASKS (card): found '[': write a regular expression"),
        (
            '{"card": "a{99999999999}"}',
            "SAE_MONITOR_DECISION_LOG_MASKS (card): found 'a{99999999999}': write a regular",
        ),
        ("[" * 100_000, "SAE_MONITOR_DECISION_LOG_MASKS: found '[[["),
    ],
)
@pytest.mark.parametrize("way", ["variable", "flag"])
def test_wrong_json_is_named_by_its_variable_or_flag(monkeypatch, value, said, way):
    if way == "flag":
        with pytest.raises(
            ConfigurationError,
            match=re.escape(said.replace("SAE_MONITOR_DECISION_LOG_MASKS", "--decision-log-masks")),
        ):
            load_settings({"decision_log_masks": value})
        return
    monkeypatch.setenv("SAE_MONITOR_DECISION_LOG_MASKS", value)
    with pytest.raises(ConfigurationError, match=re.escape(said)) as caught:
        load_settings()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", ["{enforce_eager: true}", "[1]", "1"])
@pytest.mark.parametrize(
    ("name", "example"),
    [("vllm_options", {"enforce_eager": True}), ("decision_log_masks", {"card": "[0-9]{16}"})],
)
def test_the_example_of_a_mapping_is_one_for_its_setting(name, example, value):
    with pytest.raises(ConfigurationError, match=re.escape(f"such as {json.dumps(example)}")):
        load_settings({name: value})
    load_settings({name: json.dumps(example)})


def test_every_mapping_has_an_example():
    mappings = {name for name, field in Settings.model_fields.items() if isinstance(field.default, dict)}
    assert mappings == set(module._MAPPINGS)


def test_json_in_a_variable_counts(monkeypatch):
    monkeypatch.setenv("SAE_MONITOR_DECISION_LOG_MASKS", '{"card": "[0-9]{16}"}')
    assert load_settings().decision_log_masks == {"card": re.compile("[0-9]{16}")}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_of_other_editors(tmp_path, encoding):
    path = tmp_path / "settings.yaml"
    path.write_text("queue_size: 3\n", encoding)
    if encoding == "utf-8-sig":
        assert load_settings({"settings": path}).queue_size == 3
        return
    with pytest.raises(ConfigurationError, match=r"settings.yaml:1: not YAML: is UTF-16, not UTF-8"):
        load_settings({"settings": path})


class TestPairs:
    def test_a_pair_is_a_setting(self, monkeypatch):
        monkeypatch.setenv("SAE_MONITOR_PAIR", "tiny")
        assert load_settings().pair == "tiny"
        assert load_settings({"pair": "smollm2", "model": "some/file.gguf"}).pair == "smollm2"

    def test_a_pair_and_a_dictionary_exclude_each_other_and_both_places_are_named(
        self, monkeypatch, tmp_path
    ):
        with pytest.raises(ConfigurationError, match=r"^--pair and --dictionary exclude each other"):
            load_settings({"pair": "tiny", "model": "m", "dictionary": "d"})
        path = tmp_path / "settings.yaml"
        path.write_text("grace_seconds: 3\ndictionary: mine\n")
        monkeypatch.setenv("SAE_MONITOR_PAIR", "tiny")
        with pytest.raises(ConfigurationError) as caught:
            load_settings({"settings": path})
        assert str(caught.value).startswith(f"SAE_MONITOR_PAIR and {path}:2: dictionary exclude each other")
        assert "leave out one of them" in str(caught.value)
