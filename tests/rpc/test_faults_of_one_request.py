"""Faults that have to do with one request alone, in the real server: its caller is told, all others are served."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from monitor.model.engine import sequence
from monitor.model.engine.detokenizer import TextStream
from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import fails, generation
from tests.rpc.faulty import SERVING, Faulty, faulty
from tests.rpc.pairs import SILENT
from tests.rpc.striking import before_layer
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

NEIGHBOURS = ("see a cat", "a dog in the rain runs", "rain")
MARK = "~~~ this one"
NEW = 24


@pytest.fixture(scope="module", params=["closed", "open"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    with faulty(tmp_path_factory.mktemp("pair"), on_error=request.param, blocks=False) as running:
        running.on_error = request.param
        yield running


def texts(server: Faulty, *, beside: bool) -> tuple[list[str], Future | None]:
    """What the neighbours are told, alone or beside the request that breaks; and what became of that."""

    def generate(text: str) -> pb.GenerateResponse:
        return server.generate(text, max_new_tokens=NEW, include_tokens=True)

    if not beside:
        return [generate(text).text for text in NEIGHBOURS], None
    with ThreadPoolExecutor(8) as threads:
        broken = threads.submit(generate, MARK)
        others = [threads.submit(generate, text) for text in NEIGHBOURS]
        found = [call.result() for call in others]
    assert [response.verdict.status for response in found] == [pb.CHECK_STATUS_CHECKED] * len(NEIGHBOURS)
    return [response.text for response in found], broken


def idle(server: Faulty) -> None:
    runtime = server.runtime
    wait_for(lambda: runtime.engine.running() == runtime.engine.queue_depth() == 0)
    assert runtime.engine._sequences == {}
    assert runtime._bank._slots._by_requests == {}
    wait_for(lambda: server.health() == SERVING)


@pytest.mark.parametrize("name", ["push", "finish"])
def test_text_that_cannot_be_written(server: Faulty, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    expected, _ = texts(server, beside=False)
    inner, marked = getattr(TextStream, name), list[TextStream]()
    begin = sequence.Sequence.__init__

    def noted(self, request, *args):
        begin(self, request, *args)
        if len(request.prompt_ids) == len(MARK) + 1:
            marked.append(self._text)

    def broken(self, *args):
        if any(self is text for text in marked):
            raise ValueError("planted")
        return inner(self, *args)

    monkeypatch.setattr(sequence.Sequence, "__init__", noted)
    monkeypatch.setattr(TextStream, name, broken)
    found, broken_call = texts(server, beside=True)
    assert marked
    assert found == expected
    assert broken_call.exception().code().name == (
        "FAILED_PRECONDITION" if server.on_error == "closed" else "UNAVAILABLE"
    )
    idle(server)


def test_a_prompt_whose_rows_are_no_numbers(server: Faulty) -> None:
    expected, _ = texts(server, beside=False)
    token = server.runtime.tokenise("~", truncate=False, room=0, reply=False).ids[-1]

    def embed(_module: object, args: tuple, embedded: torch.Tensor) -> torch.Tensor:
        return embedded.masked_fill((args[0] == token).unsqueeze(-1), float("nan"))

    handle = server.runtime.loaded.model.get_input_embeddings().register_forward_hook(embed)
    try:
        found, broken = texts(server, beside=True)
        assert found == expected
        if server.on_error == "closed":
            assert broken.exception().code().name == "FAILED_PRECONDITION"
        else:
            verdict = broken.result().verdict
            assert verdict.status == pb.CHECK_STATUS_UNKNOWN
            assert verdict.coverage.tokens_scored == 0
    finally:
        handle.remove()
    idle(server)


def test_a_clamp_whose_row_cannot_be_read(server: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = server.runtime
    autoencoder = runtime.dictionary.autoencoder
    held = {*runtime._bank.fixed}
    sound, broken = [f for f in range(autoencoder.features) if f not in held][:2]
    row = type(autoencoder).row

    def read(self, feature: int):
        if feature == broken:
            raise OSError("the disk")
        return row(self, feature)

    monkeypatch.setattr(type(autoencoder), "row", read)

    def clamped(*features: int) -> pb.GenerateResponse:
        clamps = [pb.Clamp(feature=feature, target=-1.0) for feature in features]
        request = pb.GenerateRequest(generation=generation(SILENT, max_new_tokens=2, clamps=clamps))
        return server.stub.Generate(request, timeout=60)

    for _ in range(40):  # more than there are slots
        with fails("INTERNAL"):
            clamped(sound, broken)
    idle(server)
    assert clamped(sound).verdict.status == pb.CHECK_STATUS_CHECKED


def test_a_token_that_breaks_takes_no_other_scoring_with_it(server: Faulty) -> None:
    def fail(_module: object, args: tuple) -> None:
        if (args[0] == token).any():
            raise IndexError("planted")

    token = server.runtime.tokenise("~", truncate=False, room=0, reply=False).ids[-1]
    handle = server.runtime.loaded.model.get_input_embeddings().register_forward_pre_hook(fail)
    try:
        with before_layer(server, lambda _: None), ThreadPoolExecutor(8) as threads:
            broken = [threads.submit(server.score, MARK) for _ in range(3)]
            others = [threads.submit(server.score, text) for text in NEIGHBOURS]
            for call in others:
                assert call.result().verdict.status == pb.CHECK_STATUS_CHECKED
            for call in broken:
                if server.on_error == "closed":
                    assert call.exception().code().name == "FAILED_PRECONDITION"
                else:
                    assert call.result().verdict.status == pb.CHECK_STATUS_UNKNOWN
    finally:
        handle.remove()
    idle(server)
