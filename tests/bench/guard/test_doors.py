"""The doors that are compared: their configurations, and that a guard's process serves."""

import asyncio

import pytest

from monitor.bench.guard.doors import _bootstrap, _litellm_config, guard
from monitor.bench.guard.streams import numbered, one_by_one, said
from monitor.http.guard.recorded import recorded


def names(config):
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return [one["name"].rpartition(".")[2] for one in manager["http_filters"]]


def test_envoy_is_configured_as_it_is_shipped_and_without_a_filter():
    plain = _bootstrap(1, 2, "http://127.0.0.1:3", None)
    assert names(plain) == ["router"]
    assert [c["name"] for c in plain["static_resources"]["clusters"]] == ["inference_server"]
    watched = _bootstrap(1, 2, "http://127.0.0.1:3", "127.0.0.1:4")
    assert names(watched) == ["ext_proc", "router"]
    ports = [
        c["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
        for c in watched["static_resources"]["clusters"]
    ]
    assert [port["port_value"] for port in ports] == [3, 4]


def test_litellm_asks_the_server_and_runs_its_guardrail_always():
    config = _litellm_config("http://127.0.0.1:3")
    assert config["model_list"][0]["litellm_params"]["api_base"] == "http://127.0.0.1:3/v1"
    assert config["guardrails"][0]["litellm_params"]["default_on"]


@pytest.mark.slow
def test_a_guard_of_its_own_process_holds_streams():
    pieces = said(3)
    with recorded(numbered(pieces)) as (_, behind), guard(behind, "hold", "tiny") as door:
        found = asyncio.run(one_by_one(door.url, 1, pieces, guarded=door.guarded))
        assert (len(found.first), found.wrong) == (1, 0)
