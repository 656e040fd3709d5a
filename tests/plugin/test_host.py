"""The monitor in the process of vLLM's engine core: its settings, and what leaves where something in it fails."""

import errno
from types import SimpleNamespace

import pytest
import structlog
import torch

from monitor.errors import ConfigurationError, MonitorError
from monitor.plugin.refusals import refusal_in
from monitor.policy.rules.observer import Rules
from monitor.records import Failure
from monitor.telemetry.decisions import writer
from monitor.telemetry.decisions.reader import verify
from tests.rpc.pairs import SILENT
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


def config(**model):
    return SimpleNamespace(
        model_config=SimpleNamespace(
            **({"model": "/models/one", "dtype": "torch.bfloat16", "max_model_len": 4096} | model)
        ),
        scheduler_config=SimpleNamespace(max_num_seqs=128),
    )


def test_vllms_arguments_win(vllm, monkeypatch, tmp_path):
    from monitor.plugin.host import chosen_settings, hosted_settings

    (tmp_path / "settings.yaml").write_text("dtype: float32\nmax_running: 3\ncontext_limit: 512\n")
    monkeypatch.setenv("SAE_MONITOR_SETTINGS", str(tmp_path / "settings.yaml"))
    found = hosted_settings(chosen_settings(config()), config())
    assert (found.model, found.dtype, found.max_running, found.context_limit) == (
        "/models/one",
        "bfloat16",
        128,
        512,
    )
    short = config(max_model_len=256)
    assert hosted_settings(chosen_settings(short), short).context_limit == 256


def test_settings_that_vllms_arguments_replace_are_warned_about(vllm, monkeypatch, tmp_path):
    from monitor.plugin import host

    (tmp_path / "settings.yaml").write_text(
        "vllm_plugin: true\ndictionary: /nowhere\nmax_running: 3\nvllm_options: {block_size: 32}\n"
    )
    monkeypatch.setenv("SAE_MONITOR_SETTINGS", str(tmp_path / "settings.yaml"))
    monkeypatch.setattr(host, "configure", lambda *_: None)
    asked = config()
    asked.model_config.enforce_eager = True
    asked.device_config = SimpleNamespace(device_type="cpu")
    with structlog.testing.capture_logs() as logs, pytest.raises(MonitorError):
        host.Host(asked)
    unused = [log["setting"] for log in logs if log["event"] == "a setting has no effect"]
    assert unused == ["vllm_options", "max_running"]


def test_a_monitor_of_which_the_api_server_does_not_know_does_not_start(vllm, monkeypatch, tmp_path):
    from monitor.plugin.host import Host

    (tmp_path / "settings.yaml").write_text("dtype: float32\n")
    monkeypatch.setenv("SAE_MONITOR_SETTINGS", str(tmp_path / "settings.yaml"))
    with pytest.raises(ConfigurationError, match="set vllm_plugin"):
        Host(config())


class TestFaults:
    """Whatever fails: no unscored token leaves, the caller is told, and the next request is served."""

    def refused(self, served, prompt, failure):
        answer, last = served.last_of(prompt, max_tokens=4)
        assert last["failure"] == failure.value
        assert last["coverage"].get("tokens_scored", 0) < last["coverage"]["tokens_run"]
        self.nothing_left(answer)
        return answer

    def nothing_left(self, answer):
        assert list(answer.outputs[0].token_ids) == []
        assert answer.outputs[0].text == ""
        assert answer.outputs[0].finish_reason == "error"
        assert refusal_in(answer.outputs[0].stop_reason) == (503, "the request could not be served")

    def served_again(self, served, prompt):
        """Also where what was cached while it failed is the beginning of another text."""
        answer, last = served.last_of(prompt, max_tokens=4, ignore_eos=True)
        assert answer.outputs[0].finish_reason == "length"
        assert last["status"] == "checked"
        assert last["coverage"]["tokens_run"] == last["coverage"]["tokens_scored"]

    def test_a_tap_that_does_not_run(self, served, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(served.host.runtime.tap, "apply", lambda x, buffers: None)
            self.refused(served, "another beginning " * 12, Failure.TAP_MISSED)
        self.served_again(served, "another beginning " * 12)

    def test_readings_that_are_no_numbers(self, served, monkeypatch):
        apply = served.host.runtime.tap.apply

        def broken(x, buffers):
            found = apply(x, buffers)
            buffers.readings[: len(x)] = torch.nan
            return found

        with monkeypatch.context() as patch:
            patch.setattr(served.host.runtime.tap, "apply", broken)
            self.refused(served, "one more beginning " * 12, Failure.NON_FINITE)
        self.served_again(served, "one more beginning " * 12)

    def test_rows_of_another_request(self, served, monkeypatch):
        from monitor.vllm import parts

        real = parts.ids_that_run
        with monkeypatch.context() as patch:
            patch.setattr(parts, "ids_that_run", lambda runner: real(runner).flip(0))
            self.refused(served, "a third beginning", Failure.ROW_MISMATCH)
        self.served_again(served, "a third beginning")

    def test_rules_that_crash(self, served, monkeypatch):
        def crash(*_args):
            raise ValueError("planted")

        with monkeypatch.context() as patch:
            patch.setattr(Rules, "_scored", crash)
            self.refused(served, "a fourth beginning", Failure.RULE_ERROR)
        self.served_again(served, "a fourth beginning")

    def test_a_disk_that_is_full(self, served, monkeypatch):
        """What ran was scored; but the answer is not told to be complete, and nobody else is served."""

        def full(*_args):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(writer.Disk, "write", full)
            for _ in range(2):
                answer = served.ask(SILENT, max_tokens=4)
                assert answer.outputs[0].finish_reason == "error"
                assert refusal_in(answer.outputs[0].stop_reason).status == 503
            assert list(answer.outputs[0].token_ids) == []
            assert served.metric("decision_log_dropped_total") == 1
        wait_for(served.host._server._decisions.ledger.healthy)
        self.served_again(served, SILENT)
        assert verify(served.folder / "decisions").faults == []
