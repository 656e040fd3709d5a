"""Ports, health, reflection, metrics and the way to stop."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import threading

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from monitor.errors import ConfigurationError
from monitor.http.door import HttpDoor
from monitor.rpc.server import Server, run_in_background, run_in_foreground, serve
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.rpc.conftest import DEADLINE, connected, fails, generation, serving, settings
from tests.rpc.fake import FakeRuntime, policies
from tests.waiting import wait_for

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def health(served, service=""):
    stub = health_pb2_grpc.HealthStub(served.channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE).status


def after_checks(served, number):
    """Wait until health was checked so many times more; a check that finds something new reads the number twice."""
    before = served.runtime.checks
    wait_for(lambda: served.runtime.checks >= before + number)


def test_health_of_server_and_service(served):
    assert health(served) == SERVING
    assert health(served, "monitor.v1.MonitorService") == SERVING
    with fails("NOT_FOUND"):
        health(served, "some.other.Service")


def test_a_dead_engine_is_not_serving(served):
    served.runtime.engine.die()
    wait_for(lambda: health(served) == NOT_SERVING)
    assert health(served, "monitor.v1.MonitorService") == NOT_SERVING


@pytest.mark.slow
def test_what_cannot_be_scored_is_not_serving_until_a_probe_is_scored_again(served):
    served.runtime.sees = False
    after_checks(served, 2)
    assert health(served) == SERVING, "nobody asked: every token so far was scored"
    served.runtime.unscored += 1
    wait_for(lambda: health(served) == NOT_SERVING)
    served.runtime.sees = True
    wait_for(lambda: health(served) == SERVING)


@pytest.mark.slow
def test_a_defect_in_the_probe_is_not_serving_and_does_not_end_the_watching():
    def probe():
        if broken.is_set():
            raise RuntimeError("can't start new thread")
        return True

    broken, chosen = threading.Event(), policies()
    broken.set()
    runtime = FakeRuntime(chosen.watch)
    runtime.can_see = probe
    with serving(runtime, chosen) as served:
        runtime.unscored += 1
        wait_for(lambda: health(served) == NOT_SERVING, 20)
        assert served.metric("serving") == 0
        broken.clear()
        wait_for(lambda: health(served) == SERVING, 20)


@pytest.mark.slow
def test_one_text_that_could_not_be_scored_leaves_the_server_serving(served):
    served.runtime.unscored += 1
    after_checks(served, 4)
    assert health(served) == SERVING


def test_health_is_answered_when_all_calls_are_taken():
    with serving(max_concurrent_calls=1) as served:
        served.runtime.scorer.gate.clear()
        held = served.stub.Score.future(pb.ScoreRequest(input=pb.Input(text="hold")), timeout=DEADLINE)
        wait_for(lambda: served.runtime.scorer.submitted)
        assert health(served) == SERVING
        served.runtime.scorer.gate.set()
        held.result()


def reflected(served):
    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=DEADLINE)
    return {service.name for service in answer.list_services_response.service}


def test_reflection_lists_the_services(served):
    assert {"monitor.v1.MonitorService", "grpc.health.v1.Health"} <= reflected(served)


def test_reflection_can_be_off():
    with serving(reflection=False) as served, fails("UNIMPLEMENTED"):
        reflected(served)


def test_every_label_set_exists_before_the_first_call(served):
    assert served.metric("requests_total") == 0
    from tests.rpc.conftest import scrape

    names = {name for name, _ in scrape(served.addresses.metrics)}
    for name in (
        "requests_total",
        "request_duration_seconds_bucket",
        "tokens_scored_total",
        "tokens_unscored_total",
        "detections_total",
        "suppressed_tokens_total",
        "blocked_requests_total",
        "monitor_failures_total",
        "rejected_requests_total",
        "feature_activation_bucket",
        "feature_activation_max",
        "policy_info",
        "policies_last_reload_success",
        "policies_last_reload_success_timestamp_seconds",
        "queue_depth",
        "running",
        "build_info",
        "engine_info",
    ):
        assert f"sae_monitor_{name}" in names
    assert served.metric("policies_last_reload_success") == 1
    assert served.metric("policy_info", policy="weapons", maturity="experimental") == 1


def test_queue_depth_is_read_at_the_scrape(served):
    served.runtime.scorer.gate.clear()
    held = [
        served.stub.Score.future(pb.ScoreRequest(input=pb.Input(text="hold")), timeout=DEADLINE)
        for _ in range(5)
    ]
    wait_for(lambda: len(served.runtime.scorer.submitted) == 5)
    assert served.metric("queue_depth") >= 4
    served.runtime.scorer.gate.set()
    for call in held:
        call.result()
    assert served.metric("queue_depth") == 0


@pytest.mark.parametrize("name", ["listen", "metrics_listen"])
def test_a_port_in_use_is_a_configuration_error(name):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        chosen = policies()
        server = Server(settings(**{name: address}), FakeRuntime(chosen.watch), chosen)
        with pytest.raises(ConfigurationError, match="another"), run_in_background(server, 1.0):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("name", ["listen", "metrics-listen", "http-listen"])
def test_a_process_that_cannot_open_a_port_says_so_and_ends(name):
    at = dict.fromkeys(("listen", "metrics-listen", "http-listen"), "127.0.0.1:0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        at[name] = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "monitor", "serve", "--pair=tiny"]
        ports = [f"--{port}={address}" for port, address in at.items()]
        ended = subprocess.run([*command, *ports], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert "give another" in ended.stderr
    assert not {"Traceback", "excepthook"} & set(re.findall(r"\w+", ended.stderr))


def test_what_fails_once_the_engine_runs_stops_it():
    """Its threads would keep Python from ending."""

    class Closed:
        async def start(self):
            raise ConfigurationError("give another address")

    chosen, stopped = policies(), []
    runtime = FakeRuntime(chosen.watch)
    runtime.stop = stopped.append
    server = Server(settings(), runtime, chosen, door=lambda *parts: Closed())
    with pytest.raises(ConfigurationError, match="another"), run_in_background(server, 1.0):
        pass
    assert stopped == [0]


def test_what_cannot_be_announced_is_stopped():
    chosen, stopped = policies(), []
    runtime = FakeRuntime(chosen.watch)
    runtime.stop = stopped.append

    def ready(addresses):
        raise OSError("nobody reads")

    with pytest.raises(OSError, match="nobody reads"):
        run_in_foreground(Server(settings(), runtime, chosen), 0.1, ready)
    assert stopped


def test_two_servers_do_not_share_a_port(served):
    chosen = policies()
    server = Server(settings(listen=served.addresses.grpc), FakeRuntime(chosen.watch), chosen)
    with pytest.raises(ConfigurationError), run_in_background(server, 1.0):
        pass


class Stopping:
    """A server that is told to stop while calls are in progress."""

    def __init__(self, grace):
        chosen = policies()
        self.runtime = FakeRuntime(chosen.watch)
        self.ended = threading.Event()
        self.background = run_in_background(Server(settings(), self.runtime, chosen), grace)

    def __enter__(self):
        self.addresses = self.background.__enter__()
        return self

    def stop(self):
        def work():
            self.background.__exit__(None, None, None)
            self.ended.set()

        threading.Thread(target=work, daemon=True).start()

    def __exit__(self, *_):
        self.runtime.engine.gate.set()
        assert self.ended.wait(DEADLINE)


@pytest.mark.slow
def test_calls_in_progress_finish_and_new_ones_are_refused():
    with Stopping(grace=3600) as server, connected(server.addresses.grpc) as channel:
        stub = MonitorServiceStub(channel)
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=3600)
        assert next(watched).status == SERVING
        server.runtime.engine.gate.clear()
        request = pb.GenerateRequest(generation=generation("one two", max_new_tokens=3))
        call = stub.Generate.future(request, timeout=DEADLINE)
        wait_for(lambda: server.runtime.engine.submitted)
        server.stop()
        assert next(watched).status == NOT_SERVING
        with fails("UNAVAILABLE"):
            stub.Score(pb.ScoreRequest(input=pb.Input(text="late")), timeout=DEADLINE)
        server.runtime.engine.gate.set()
        assert call.result().text == "one two one "
        # The health watcher, who never leaves, does not hold the server for the whole grace period.
        assert server.ended.wait(DEADLINE)


def test_what_outlives_the_grace_period_is_cancelled():
    with Stopping(grace=0.2) as server, connected(server.addresses.grpc) as channel:
        request = pb.GenerateStreamRequest(generation=generation("one two", max_new_tokens=10_000_000))
        call = MonitorServiceStub(channel).GenerateStream(request, timeout=DEADLINE)
        next(call)
        server.stop()
        with pytest.raises(grpc.RpcError):
            list(call)
        wait_for(lambda: server.runtime.engine.cancelled)
        assert server.ended.wait(DEADLINE)


async def answers(channel):
    """True while new calls are answered; False once the server drains."""
    try:
        await MonitorServiceStub(channel).ListPolicies(pb.ListPoliciesRequest())
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    return True


def test_a_second_signal_ends_the_grace_period():
    async def run():
        chosen = policies()
        runtime = FakeRuntime(chosen.watch)
        server = Server(settings(), runtime, chosen)
        addresses = await server.start()
        runtime.engine.gate.clear()
        async with grpc.aio.insecure_channel(addresses.grpc, [("grpc.enable_http_proxy", 0)]) as channel:
            request = pb.GenerateRequest(generation=generation("one two"))
            call = MonitorServiceStub(channel).Generate(request)
            while not runtime.engine.submitted:
                await asyncio.sleep(0.01)
            stopping = asyncio.create_task(server.stop(grace=3600))
            while await answers(channel):
                await asyncio.sleep(0)
            assert not stopping.done()
            server.hurry()
            with pytest.raises(grpc.RpcError):
                await call
            runtime.engine.gate.set()
            await stopping
        assert runtime.engine.cancelled

    asyncio.run(asyncio.wait_for(run(), DEADLINE))


def test_nothing_of_the_server_is_left_behind():
    before = set(threading.enumerate())
    with serving() as served:
        served.score("hello")
    left = {t.name for t in set(threading.enumerate()) - before if t.is_alive()}
    # gRPC keeps one thread per process, and the names of its channels' threads begin with an underscore.
    assert not {name for name in left if "_poll_wrapper" not in name and "_channel" not in name}


def test_the_server_runs_on_a_loop_that_exists_already():
    async def run():
        chosen = policies()
        server = Server(settings(), FakeRuntime(chosen.watch), chosen)
        addresses = await server.start()
        async with grpc.aio.insecure_channel(addresses.grpc, [("grpc.enable_http_proxy", 0)]) as channel:
            answer = await MonitorServiceStub(channel).Score(pb.ScoreRequest(input=pb.Input(text="a lie")))
        await server.stop(1.0)
        return answer

    assert asyncio.run(run()).verdict.matched


def test_a_hangup_while_the_model_is_loaded_does_not_end_the_process(monkeypatch):
    def loading(_):
        found.append(signal.getsignal(signal.SIGHUP))
        raise ConfigurationError("enough")

    found, before = [], signal.getsignal(signal.SIGHUP)
    monkeypatch.setattr("monitor.rpc.server.assemble", loading)
    try:
        with pytest.raises(ConfigurationError, match="enough"):
            serve(settings())
    finally:
        signal.signal(signal.SIGHUP, before)
        structlog.reset_defaults()
    assert found == [signal.SIG_IGN]


def reached(host, address):
    """Whether somebody takes a connection at a port of one of this machine's addresses."""
    try:
        with socket.create_connection((host, int(address.rpartition(":")[2])), timeout=10):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    ("host", "at"),
    [
        ("0.0.0.0", ["127.0.0.1", "::1"]),
        ("[::]", ["127.0.0.1", "::1"]),
        ("127.0.0.1", ["127.0.0.1"]),
        ("[::1]", ["::1"]),
        ("localhost", ["localhost"]),
    ],
)
def test_every_port_reads_a_host_alike(host, at):
    """Wildcards of either kind are reached over both, so that a machine with one kind of address reaches all ports."""
    if not socket.has_dualstack_ipv6() or not reached_by_ipv6():
        pytest.skip("this machine has no IPv6")
    names = dict.fromkeys(("listen", "metrics_listen", "http_listen"), f"{host}:0")
    chosen = policies()
    asked = settings(**names, insecure_listen=True)
    server = Server(asked, FakeRuntime(chosen.watch), chosen, door=HttpDoor)
    with run_in_background(server, 1.0) as addresses:
        for address in (addresses.grpc, addresses.metrics, addresses.http):
            assert address.removeprefix("http://").startswith(f"{host}:")
            assert all(reached(one, address) for one in at)
            others = {"127.0.0.1", "::1"} - set(at) if host != "localhost" else set()
            assert not any(reached(one, address) for one in others)


def reached_by_ipv6():
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True
