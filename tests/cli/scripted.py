"""A server that follows a script: the real protocol over a real port, with words as tokens and known readings.

Every fault that a test needs is one field of `Faults`, so that each expectation can be seen to fail.
"""

# ruff: noqa: N802 (the generated base class names its methods so)
from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from prometheus_client import CollectorRegistry, Counter, start_http_server

from monitor.v1 import monitor_pb2 as pb
from monitor.v1 import monitor_pb2_grpc

POWER, LIES, FILMS = 11, 22, 33
WORDS = {
    "power": (POWER, 0.9),
    "control": (POWER, 0.5),
    "lie": (LIES, 0.7),
    "deceive": (LIES, 0.8),
    "movie": (FILMS, 0.9),
    "film": (FILMS, 0.8),
}
"""What a word reads."""
THRESHOLD = 0.6
PLAIN = ("more", "power", "gives", "more", "control", ".")
CLAMPED = ("friends", "help", "one", "another", ".")
TURNED_UP = ("I", "watched", "a", "movie", ".")
"""What is written where the feature of films is turned up."""
DIGESTS = pb.Digests(
    model="sha256:" + "a1" * 32, dictionary="sha256:" + "b2" * 32, policies="sha256:" + "c3" * 32
)
FEATURES = 64


@dataclass
class Faults:
    """What goes wrong, if anything."""

    unscored: int = 0
    """Tokens that ran and were not scored."""
    slow: float = 0.0
    """Seconds before an answer."""
    deaf: bool = False
    """No rule ever fires."""
    jumpy: bool = False
    """The first rule fires on everything."""
    clamps_do_nothing: bool = False
    clamps_always: bool = False
    empty: bool = False
    """No policy is loaded."""
    moody: bool = False
    """The same request gives another text each time."""
    miscounts: bool = False
    sick: bool = False
    ends_early: bool = False
    """A stream ends without its final message."""
    blocks: bool = False


@dataclass
class Scripted(monitor_pb2_grpc.MonitorServiceServicer):
    """The service itself."""

    faults: Faults = field(default_factory=Faults)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    requests: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        def counter(name: str, *labels: str) -> Counter:
            return Counter(name, "Test.", labels, namespace="sae_monitor", registry=self.registry)

        self._calls = counter("requests", "method", "code")
        self._tokens = counter("tokens_scored", "phase")
        self._detections = counter("detections", "policy", "rule")
        self._turn = 0

    def ListPolicies(
        self, request: pb.ListPoliciesRequest, context: grpc.ServicerContext
    ) -> pb.ListPoliciesResponse:
        self._calls.labels("ListPolicies", "OK").inc()
        loaded = [] if self.faults.empty else [_policy("power-seeking", POWER), _policy("deception", LIES)]
        return pb.ListPoliciesResponse(policies=loaded, digests=DIGESTS)

    def Score(self, request: pb.ScoreRequest, context: grpc.ServicerContext) -> pb.ScoreResponse:
        self.requests.append(request)
        time.sleep(self.faults.slow)
        tokens = _tokens(_words(_text(request.input, context)), pb.PHASE_PROMPT, 0, ())
        verdict = self._verdict(tokens)
        self._count("Score", verdict)
        shown = tokens if request.include_tokens else []
        return pb.ScoreResponse(request_id="r-1", verdict=verdict, tokens=shown, digests=DIGESTS)

    def Inspect(self, request: pb.InspectRequest, context: grpc.ServicerContext) -> pb.InspectResponse:
        tokens = _tokens(_words(_text(request.input, context)), pb.PHASE_PROMPT, 0, ())
        self._calls.labels("Inspect", "OK").inc()
        return pb.InspectResponse(
            tokens=[
                pb.InspectedToken(
                    position=t.position, text=t.text, features=[] if self.faults.deaf else t.readings
                )
                for t in tokens
            ]
        )

    def Generate(self, request: pb.GenerateRequest, context: grpc.ServicerContext) -> pb.GenerateResponse:
        tokens, text, finish = self._run(request.generation, context)
        verdict = self._verdict(tokens)
        self._count("Generate", verdict)
        return pb.GenerateResponse(
            request_id="r-2", text=text, finish_reason=finish, verdict=verdict, tokens=tokens, digests=DIGESTS
        )

    def GenerateStream(
        self, request: pb.GenerateStreamRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.GenerateStreamResponse]:
        tokens, _, finish = self._run(request.generation, context)
        verdict = self._verdict(tokens)
        prompt = [t for t in tokens if t.phase == pb.PHASE_PROMPT]
        yield pb.GenerateStreamResponse(request_id="r-3", chunk=pb.Chunk(tokens=prompt))
        for token in tokens[len(prompt) :]:
            for detection in verdict.detections:
                if detection.position == token.position:
                    yield pb.GenerateStreamResponse(request_id="r-3", detection=detection)
            yield pb.GenerateStreamResponse(request_id="r-3", chunk=pb.Chunk(text=token.text, tokens=[token]))
        self._count("GenerateStream", verdict)
        if not self.faults.ends_early:
            final = pb.Final(finish_reason=finish, verdict=verdict, digests=DIGESTS)
            yield pb.GenerateStreamResponse(request_id="r-3", final=final)

    def _run(
        self, generation: pb.Generation, context: grpc.ServicerContext
    ) -> tuple[list[pb.ScoredToken], str, pb.FinishReason]:
        self.requests.append(generation)
        for number, clamp in enumerate(generation.clamps):
            if clamp.feature >= FEATURES:
                _refuse(context, f"generation.clamps[{number}].feature", f"there are {FEATURES} features")
        clamps = () if self.faults.clamps_do_nothing else tuple(generation.clamps)
        if self.faults.clamps_always:
            clamps = (pb.Clamp(feature=POWER),)
        prompt = _tokens(_words(_text(generation.input, context)), pb.PHASE_PROMPT, 0, clamps)
        turned_up = any(clamp.feature == FILMS and clamp.target > 0 for clamp in clamps)
        words = [f" {word}" for word in (TURNED_UP if turned_up else CLAMPED if clamps else PLAIN)]
        if self.faults.moody:
            self._turn += 1
            words.append(f" {self._turn}")
        written = _tokens(words, pb.PHASE_RESPONSE, len(prompt), clamps)
        finish = pb.FINISH_REASON_POLICY if self.faults.blocks else pb.FINISH_REASON_STOP
        return prompt + written, "".join(words), finish

    def _verdict(self, tokens: list[pb.ScoredToken]) -> pb.Verdict:
        found: dict[tuple[str, int], pb.Detection] = {}
        for token in tokens:
            for policy, feature in (("power-seeking", POWER), ("deception", LIES)):
                value = max((r.value for r in token.readings if r.feature == feature), default=0.0)
                loud = value >= THRESHOLD and not self.faults.deaf
                if loud or (self.faults.jumpy and policy == "power-seeking"):
                    found.setdefault((policy, token.phase), _detection(policy, feature, token, value))
        unscored = min(self.faults.unscored, len(tokens))
        return pb.Verdict(
            status=pb.CHECK_STATUS_UNKNOWN if unscored else pb.CHECK_STATUS_CHECKED,
            failure="tap_missed" if unscored else "",
            matched=bool(found),
            action=self._action(bool(found)),
            detections=found.values(),
            scores=[
                _score(policy, tokens, feature)
                for policy, feature in (("power-seeking", POWER), ("deception", LIES))
            ],
            coverage=pb.Coverage(tokens_run=len(tokens), tokens_scored=len(tokens) - unscored),
        )

    def _action(self, found: bool) -> pb.Action:
        if self.faults.blocks:
            return pb.ACTION_BLOCK
        return pb.ACTION_ALERT if found else pb.ACTION_ALLOW

    def _count(self, method: str, verdict: pb.Verdict) -> None:
        self._calls.labels(method, "OK").inc(2 if self.faults.miscounts else 1)
        self._tokens.labels("prompt").inc(verdict.coverage.tokens_scored)
        for detection in verdict.detections:
            self._detections.labels(detection.policy, detection.rule).inc()


@contextmanager
def serving(faults: Faults | None = None) -> Iterator[tuple[str, str, Scripted]]:
    """Address, metrics address and the servicer of a running scripted server."""
    service = Scripted(faults or Faults())
    server = grpc.server(futures.ThreadPoolExecutor(4))
    monitor_pb2_grpc.add_MonitorServiceServicer_to_server(service, server)
    answer = health.HealthServicer()
    status = health_pb2.HealthCheckResponse
    answer.set("", status.NOT_SERVING if service.faults.sick else status.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(answer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    httpd, thread = start_http_server(0, "127.0.0.1", service.registry)
    try:
        yield f"127.0.0.1:{port}", f"127.0.0.1:{httpd.server_port}", service
    finally:
        server.stop(None).wait()
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def _policy(name: str, feature: int) -> pb.Policy:
    rule = pb.Rule(
        name="states-it",
        action=pb.ACTION_ALERT,
        mode=pb.MODE_ENFORCE,
        threshold=THRESHOLD,
        features=[feature],
        weights=[1.0],
    )
    clamp = pb.Clamp(feature=feature, target=-0.5, where=pb.CLAMP_WHERE_ACTIVE)
    return pb.Policy(
        name=name,
        title=name,
        category=name.replace("-", "_"),
        severity=pb.SEVERITY_HIGH,
        rules=[rule],
        clamps=[clamp],
    )


def _text(given: pb.Input, context: grpc.ServicerContext) -> str:
    text = given.text or "\n".join(message.content for message in given.conversation.messages)
    if not text.strip():
        _refuse(context, "input.text", "write at least one token")
    return text


def _words(text: str) -> list[str]:
    return ["<s>", *(f" {word}" for word in text.split())]


def _tokens(
    words: list[str], phase: pb.Phase, start: int, clamps: tuple[pb.Clamp, ...]
) -> list[pb.ScoredToken]:
    clamped = {c.feature: max(0.0, c.target) for c in clamps}
    return [
        pb.ScoredToken(
            position=start + i, token_id=i, text=word, phase=phase, readings=_readings(word, clamped)
        )
        for i, word in enumerate(words)
    ]


def _readings(word: str, clamped: dict[int, float]) -> list[pb.Reading]:
    feature, value = WORDS.get(word.strip(" .,\n").lower(), (0, 0.0))
    if not value:
        return []
    return [pb.Reading(feature=feature, value=value, value_after_clamp=clamped.get(feature))]


def _detection(policy: str, feature: int, token: pb.ScoredToken, value: float) -> pb.Detection:
    reading = pb.Reading(feature=feature, value=value)
    return pb.Detection(
        policy=policy,
        rule="states-it",
        category=policy.replace("-", "_"),
        severity=pb.SEVERITY_HIGH,
        action=pb.ACTION_ALERT,
        mode=pb.MODE_ENFORCE,
        phase=token.phase,
        position=token.position,
        score=value,
        threshold=THRESHOLD,
        evidence=[pb.Evidence(position=token.position, text=token.text, score=value, readings=[reading])],
    )


def _score(policy: str, tokens: list[pb.ScoredToken], feature: int) -> pb.RuleScore:
    best = max((r.value for t in tokens for r in t.readings if r.feature == feature), default=0.0)
    return pb.RuleScore(
        policy=policy, rule="states-it", phase=pb.PHASE_PROMPT, score=best, threshold=THRESHOLD
    )


def _refuse(context: grpc.ServicerContext, path: str, description: str) -> None:
    bad = error_details_pb2.BadRequest(field_violations=[{"field": path, "description": description}])
    detail = any_pb2.Any()
    detail.Pack(bad)
    status = status_pb2.Status(
        code=code_pb2.INVALID_ARGUMENT, message=f"{path}: {description}", details=[detail]
    )
    context.abort_with_status(rpc_status.to_status(status))
