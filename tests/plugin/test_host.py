"""The settings of a monitor inside vLLM: what vLLM was told to run wins."""

from types import SimpleNamespace

import pytest

from monitor.errors import ConfigurationError

pytestmark = pytest.mark.slow


def config(**model):
    return SimpleNamespace(
        model_config=SimpleNamespace(
            **({"model": "/models/one", "dtype": "torch.bfloat16", "max_model_len": 4096} | model)
        ),
        scheduler_config=SimpleNamespace(max_num_seqs=128),
    )


def test_vllms_arguments_win(vllm, monkeypatch, tmp_path):
    from monitor.plugin.host import hosted_settings

    (tmp_path / "settings.yaml").write_text("dtype: float32\nmax_running: 3\ncontext_limit: 512\n")
    monkeypatch.setenv("SAE_MONITOR_SETTINGS", str(tmp_path / "settings.yaml"))
    found = hosted_settings(config())
    assert (found.model, found.dtype, found.max_running, found.context_limit) == (
        "/models/one",
        "bfloat16",
        128,
        512,
    )
    assert hosted_settings(config(max_model_len=256)).context_limit == 256


def test_a_monitor_of_which_the_api_server_does_not_know_does_not_start(vllm, monkeypatch, tmp_path):
    from monitor.plugin.host import Host

    (tmp_path / "settings.yaml").write_text("dtype: float32\n")
    monkeypatch.setenv("SAE_MONITOR_SETTINGS", str(tmp_path / "settings.yaml"))
    with pytest.raises(ConfigurationError, match="set vllm_plugin"):
        Host(config())
