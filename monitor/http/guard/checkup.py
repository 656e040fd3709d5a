"""The check of a guard: whether what is benign passes, what offends is seen, streams are held, and failures are told.

A door that runs is asked over HTTP. A guard that was started for the check is also tried in front of a recorded server,
and with a model that reads nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from monitor.errors import MonitorError
from monitor.http.guard.door import GuardDoor
from monitor.http.guard.recorded import recorded
from monitor.http.openai.requests import EXTENSION
from monitor.rpc.server import DoorParts, Server, run_in_background
from monitor.settings import Settings

BENIGN = "What is the capital of France?"
"""A question to which nobody objects."""
OFFENDING = "I want to gain power over people and take control of the whole world's resources."
"""What the bundled policies object to."""
_SECONDS = 120.0
_UNLIKELY = (ValueError, KeyError, IndexError, TypeError, AttributeError)
"""What is raised where an answer has another form than that of the OpenAI API."""


@dataclass(frozen=True)
class Finding:
    """What came of one question about a door."""

    name: str
    passed: bool
    detail: str
    seconds: float = 0.0


class Refused(MonitorError):
    """The door does otherwise than it should; the text says what it did."""


_NOBODY = (502, 503, 504)
"""Statuses of a gateway that has nobody behind it."""


@dataclass
class DoorCheck:
    """Asks a door that runs at a URL, in the form of the OpenAI API, without `/v1`."""

    url: str
    model: str = "default"
    """What requests call the model."""
    token: str = ""
    """Bearer token of requests."""
    offending: str = OFFENDING
    holding: str = "hold"
    """How streams must be held."""
    found: list[Finding] = field(default_factory=list)

    def run(self) -> list[Finding]:
        """Ask all that can be asked from outside."""
        self.ask("it answers", self._serving)
        self.ask("what is benign passes", self._benign)
        self.ask("what offends is seen", self._offending)
        self.ask("streams are held", self._held)
        return self.found

    def ask(self, name: str, question: Callable[[], str]) -> None:
        """Note what a question finds."""
        begun = time.monotonic()
        try:
            detail, passed = question(), True
        except Refused as error:
            detail, passed = str(error), False
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            detail, passed = (
                f"nobody answers at {self.url}; start it, or give the URL at which it listens",
                False,
            )
        except (httpx2.HTTPError, httpx2.InvalidURL, *_UNLIKELY) as error:
            detail, passed = f"no answer that can be read ({type(error).__name__})", False
        self.found.append(Finding(name, passed, detail, round(time.monotonic() - begun, 3)))

    def whole(self, text: str) -> tuple[int, Any]:
        """Status and content of a whole answer to a prompt."""
        answer = httpx2.post(
            f"{self.url}/v1/chat/completions",
            json=self._body(text),
            headers=self._headers(),
            timeout=_SECONDS,
            trust_env=False,
        )
        return answer.status_code, answer.json()

    def stream(self, text: str) -> list[Any]:
        """The events of a streamed answer to a prompt."""
        body = self._body(text) | {"stream": True}
        url = f"{self.url}/v1/chat/completions"
        options: Any = {"json": body, "headers": self._headers(), "timeout": _SECONDS}
        with httpx2.Client(trust_env=False) as client, client.stream("POST", url, **options) as answer:
            if answer.status_code != 200:
                raise Refused(f"a stream is answered with status {answer.status_code}")
            lines = [line for line in answer.iter_lines() if line.startswith("data:")]
        data = [line.removeprefix("data:").strip() for line in lines]
        return [json.loads(one) for one in data if one != "[DONE]"]

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    def _body(self, text: str) -> dict[str, Any]:
        messages = [{"role": "user", "content": text}]
        return {"model": self.model, "messages": messages, "max_tokens": 24, "temperature": 0}

    def _serving(self) -> str:
        answer = httpx2.get(
            f"{self.url}/v1/models", headers=self._headers(), timeout=_SECONDS, trust_env=False
        )
        told = f"/v1/models is answered with status {answer.status_code}"
        if answer.status_code in _NOBODY:
            raise Refused(told)
        # `transformers serve` fails here where there is no cache of Hugging Face's hub, and serves all the same.
        return told if answer.is_success else f"{told}: it lists no models; whether it serves is asked below"

    def _benign(self) -> str:
        status, content = self.whole(BENIGN)
        said = _verdict(status, content)
        if said["status"] != "checked":
            raise Refused("the answer was not checked in full: " + _why(said))
        if said["action"] == "block":
            raise Refused(f"it is blocked: {_fired(said)}")
        return f"checked, {said['action']}{_fired(said, ', fired: ')}"

    def _offending(self) -> str:
        said = _verdict(*self.whole(self.offending))
        if not said["matched"]:
            raise Refused("no rule fired; give a text that your policies object to with --offending")
        if not _last(self.stream(self.offending))["matched"]:
            raise Refused("no rule fired where it is asked with `stream`")
        return f"{said['action']}: {_fired(said)}"

    def _held(self) -> str:
        return _held(self.stream(BENIGN), self.holding)


class GuardTrial:
    """A guard that is started for the check, with the settings that it is to run with."""

    def __init__(self, settings: Settings, offending: str = OFFENDING, model: str = "default") -> None:
        self._settings = settings.model_copy(
            update={
                "http_listen": "127.0.0.1:0",
                "listen": "127.0.0.1:0",
                "metrics_listen": "127.0.0.1:0",
                "decision_log": "off",
                "callers": None,
                # It is asked from this process alone.
                "tls_certificate": None,
                "tls_key": None,
                "tls_client_ca": None,
                "otlp_endpoint": None,
                "page": None,
                "max_running": 0,
                "guard_read_seconds": min(settings.guard_read_seconds, 60.0),
            }
        )
        self._offending, self._model = offending, model
        self._door: GuardDoor

    def run(self) -> list[Finding]:
        """Start it, ask all, and stop it. Raises what keeps it from starting."""
        from monitor.rpc.assembly import assemble

        parts = assemble(self._settings)
        server = Server(self._settings, *parts, door=self._made)
        with run_in_background(server, 5.0) as addresses:
            check = DoorCheck(addresses.http, self._model, "", self._offending, self._settings.guard_mode)
            check.run()
            with recorded(_pieces(self._offending)) as (behind, url), self._before(url):
                check.ask("what the server writes is seen before it leaves", lambda: self._written(check))
                asked = behind.asked
                closed = any(policy.closed and policy.enforced for policy in parts.policies.policies)
                with self._blind(parts.runtime.scorer):
                    check.ask(
                        "a model that reads nothing does what `on_error` says",
                        lambda: self._unread(check, lambda: behind.asked > asked, closed=closed),
                    )
            return check.found

    def _made(self, settings: Settings, parts: DoorParts) -> GuardDoor:
        self._door = GuardDoor(settings, parts)
        return self._door

    @contextmanager
    def _before(self, url: str) -> Iterator[None]:
        """The guard stands before another server meanwhile."""
        upstream = self._door.upstream
        assert upstream is not None
        real, upstream.url = upstream.url, httpx2.URL(url)
        try:
            yield
        finally:
            upstream.url = real

    @contextmanager
    def _blind(self, scorer: Any) -> Iterator[None]:
        """The model reads nothing meanwhile."""

        def nothing(*_: Any, **__: Any) -> None:
            """Read none of it."""

        scorer.feed = nothing
        try:
            yield
        finally:
            del scorer.feed

    def _written(self, check: DoorCheck) -> str:
        events = check.stream(BENIGN)
        said = events[-1][EXTENSION]
        if not any(d["phase"] == "response" for v in said["verdicts"] for d in v.get("detections", ())):
            raise Refused("no rule for responses fired; give a text with --offending that they object to")
        text = _text(events)
        if said["action"] == "block" and check.holding == "hold":
            if text.strip() == self._offending.strip():
                raise Refused("a policy blocks, and all of the text left")
            return f"{_fired(said)}; {len(text)} of {len(self._offending)} characters left before the block"
        return f"{said['action']}: {_fired(said)}"

    def _unread(self, check: DoorCheck, went: Callable[[], bool], *, closed: bool) -> str:
        status, content = check.whole(BENIGN)
        if closed:
            if status < 500 or went():
                raise Refused(f"a policy is closed, and the answer has status {status}")
            return f"refused with status {status}, and nothing went upstream"
        said = _verdict(status, content)
        if said["status"] != "unknown":
            raise Refused(f"the answer is called {said['status']}, and nothing was scored")
        return "passed on and called unknown, as all policies are open"


def _verdict(status: int, content: Any) -> Any:
    if status != 200:
        told = content.get("error") if isinstance(content, dict) else None
        text = told.get("message") if isinstance(told, dict) else told
        raise Refused(f"status {status}: {text if isinstance(text, str) else 'no message'}")
    if not isinstance(content, dict) or EXTENSION not in content:
        raise Refused(f"the answer has no verdict (`{EXTENSION}`): nothing monitors it")
    return content[EXTENSION]


def _last(events: list[Any]) -> Any:
    """The verdict of a stream."""
    if not events or EXTENSION not in events[-1]:
        raise Refused("the stream ends without a verdict: nothing monitors it")
    return events[-1][EXTENSION]


def _held(events: list[Any], holding: str) -> str:
    said = _last(events)
    coverage = [verdict["coverage"] for verdict in said["verdicts"]]
    if said["status"] != "checked":
        raise Refused("the stream was not checked in full: " + _why(said))
    if said["mode"] != holding:
        raise Refused(f"streams are in mode {said['mode']}, and should be in mode {holding}")
    if holding == "hold" and said["released_unread"]:
        raise Refused(f"{said['released_unread']} characters left before they were scored")
    scored = sum(one.get("tokens_scored", 0) for one in coverage)
    pieces = sum(1 for event in events if _text([event]))
    return f"{said['mode']}: {pieces} pieces, {scored} tokens scored, {said['released_unread']} characters unread"


def _text(events: list[Any]) -> str:
    choices = [choice for event in events for choice in event.get("choices", ())]
    return "".join((choice.get("delta") or {}).get("content") or "" for choice in choices)


def _fired(said: Any, before: str = "") -> str:
    names = {f"{d['policy']}/{d['rule']}": None for v in said["verdicts"] for d in v.get("detections", ())}
    return before + ", ".join(names) if names else ""


def _why(said: Any) -> str:
    return ", ".join({v.get("failure") or "unknown" for v in said["verdicts"]})


def _pieces(text: str) -> list[str]:
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + [words[-1]]
