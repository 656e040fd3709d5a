"""Flags made from settings: every one is there, says what the setting says, and means what it means elsewhere."""

import re

import pytest
import typer
from typer.main import get_command

from monitor.cli import options
from monitor.cli.options import with_every_setting
from monitor.pairs import registry
from monitor.settings import GROUPS, Settings, all_settings, load_settings


def flags():
    """The options of `serve` by the setting that they give."""
    from monitor.cli.serve import serve

    app = typer.Typer(add_completion=False)
    app.command()(serve)
    return {parameter.name: parameter for parameter in get_command(app).params if parameter.name != "help"}


def given(*words):
    """The settings that a command line of `serve` gives."""
    seen = {}
    app = typer.Typer(add_completion=False)
    app.command()(with_every_setting()(lambda **found: seen.update(found)))
    get_command(app).main(list(words), standalone_mode=False)
    return load_settings(seen)


def test_every_setting_is_a_flag_with_a_help_of_its_own():
    found = flags()
    assert list(found) == list(Settings.model_fields)
    for name, flag in found.items():
        assert flag.opts == [f"--{name.replace('_', '-')}"]
        assert len(flag.help) > 25, name
        assert flag.help.endswith("."), name
    assert len({flag.help for flag in found.values()}) == len(found)


def test_placeholders_say_what_to_give():
    given = {setting.name: setting.values for setting in all_settings()}
    kinds = {
        "callers": "FILE",
        "tls_key": "FILE",
        "settings": "FILE",
        "policies": "FOLDER",
        "layer": "NUMBER",
    }
    kinds |= {
        "pair": "NAME",
        "model": "NAME|FOLDER",
        "decision_log": "FOLDER|off",
        "insecure_listen": "",
        "dtype": "CHOICE",
    }
    assert {name: given[name] for name in kinds} == kinds


def test_groups_begin_at_settings_and_hold_all():
    assert next(iter(GROUPS)) == next(iter(Settings.model_fields))
    assert set(GROUPS) <= set(Settings.model_fields)
    assert list(dict.fromkeys(setting.group for setting in all_settings())) == list(GROUPS.values())


def test_flags_are_checked_as_settings_are():
    found = given(
        *("--queue-size", "7", "--memory-watermark", "0.5", "--tls-minimum", "1.3", "--layer", "2"),
        *("--policies", "some/where", "--skip-self-test", "--no-reflection", "--decision-log", "off"),
        *("--decision-log-masks", '{"word": "a+"}', "--decision-log-keep-seconds", "60"),
    )
    assert (found.queue_size, found.memory_watermark, found.tls_minimum, found.layer) == (7, 0.5, "1.3", 2)
    assert (str(found.policies), found.skip_self_test, found.reflection) == ("some/where", True, False)
    assert found.decision_log_masks == {"word": re.compile("a+")}
    assert found.decision_log_keep_seconds == 60.0
    assert found.max_running == Settings.model_fields["max_running"].default


def test_names_of_pairs_are_completed_and_told_in_the_help():
    flag = flags()["pair"]
    found = [item.value for item in flag.shell_complete(None, "")]
    assert found == list(registry.names())
    assert all(name in flag.help for name in registry.names())


def test_a_flag_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("SAE_MONITOR_QUEUE_SIZE", "9")
    assert given().queue_size == 9
    assert given("--queue-size", "3").queue_size == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--queue-size", "many"], "--queue-size: found 'many'"),
        (["--tls-minimum", "1.1"], "--tls-minimum: found '1.1'"),
        (["--decision-log-masks", "{"], "--decision-log-masks: found '{'"),
        (["--decision-log-masks", '{"a": "("}'], "--decision-log-masks (a): found '('"),
    ],
)
def test_what_is_wrong_with_a_flag_is_said_with_its_name(run, words, said):
    done = run("serve", *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_defaults_in_the_help_are_those_that_hold():
    texts = {setting.name: options._default(setting) for setting in all_settings()}
    assert texts["queue_size"] == " Default: 256."
    assert texts["max_message_bytes"] == " Default: 4194304 (4 MiB)."
    assert texts["max_header_bytes"] == " Default: 16384 (16 KiB)."
    assert texts["grace_seconds"] == " Default: 20."
    assert texts["tls_minimum"] == " One of 1.2, 1.3. Default: 1.2."
    assert texts["pair"] == f" Default: {registry.DEFAULT}, where neither model nor dictionary is given."
    assert texts["model"] == texts["drop_error_term"] == ""
