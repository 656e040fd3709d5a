"""The processes of the other ranks, as the first rank starts, tells, watches and ends them.

Whatever goes wrong in one of them ends all: a process that dies, that says it failed, or that does not answer in time.
The thread of the first rank may then be stuck in a sum over ranks that never comes, so others find it out.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from monitor.errors import ModelError

_POLL_SECONDS = 0.25
_GRACE_SECONDS = 2.0
"""How long the thread of a pass may take to come back once the other ranks are gone."""
_END_SECONDS = 5.0
"""How long the other ranks may take to end when told to."""

T = TypeVar("T")


class RankFailed(ModelError):
    """A rank died, did not answer, or computed something else than the first. Nothing can be scored any more."""


@dataclass(frozen=True, slots=True)
class RankCall:
    """What another rank is to do: a method of its worker, by name or pickled, or its own start."""

    method: str | bytes
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


START, END = "start", "end"
"""Methods by which another rank makes its worker and loads the model, and by which it ends."""


@dataclass(frozen=True, slots=True)
class RankStart:
    """What another rank must be told to load its part of a model."""

    config: Any
    """Of vLLM."""
    rendezvous: str
    """Where the ranks find each other."""
    layer: int
    later_layers: tuple[int, ...]
    static: bool
    """Passes may be CUDA-graph replays."""


def send(line: Connection, what: object) -> None:
    """Send something to another process, by value: `Connection.send` would lend it the memory of tensors."""
    line.send_bytes(pickle.dumps(what, pickle.HIGHEST_PROTOCOL))


def received(line: Connection) -> Any:
    """The next thing that `send` sent. Raises EOFError or OSError where the other end has gone."""
    return pickle.loads(line.recv_bytes())


@dataclass(eq=False)
class _OtherRank:
    number: int
    process: subprocess.Popen[bytes]
    line: Connection
    answers: deque[Any] = field(default_factory=deque)


class Ranks:
    """The other ranks of one model: 1 to `count` - 1."""

    def __init__(
        self,
        count: int,
        failed: Callable[[BaseException, bool], None],
        *,
        command: Sequence[str] = ("-m", "monitor.vllm.other_rank"),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Start the processes, with these further environment variables.

        `failed` is called once, on another thread, with what happened, and with True where the thread of the running
        call is stuck in it.
        """
        self._failed = failed
        self._lock = threading.Condition()
        self._left: float | None = None
        """Seconds that the call that runs may still take; None between calls."""
        self._ending = False
        self._over = threading.Event()
        self.failure: RankFailed | None = None
        """Why no rank runs any more; None while all do."""
        self._others: list[_OtherRank] = []
        self._listeners: list[threading.Thread] = []
        try:
            for number in range(1, count):
                self._others.append(_started(number, command, settings or {}))
        except BaseException:
            self.end()
            raise
        for other in self._others:
            name = f"rank{other.number}"
            self._listeners.append(
                threading.Thread(target=self._listen, args=(other,), name=name, daemon=True)
            )
            self._listeners[-1].start()
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()

    @property
    def processes(self) -> list[int]:
        """Process ids of the other ranks, in order."""
        return [other.process.pid for other in self._others]

    def run(self, call: RankCall, own: Callable[[], T], seconds: float) -> tuple[T, list[Any]]:
        """Have the other ranks do something, do this rank's part of it meanwhile, and take their answers, by rank.

        Raises RankFailed where not all have answered within so many seconds.
        """
        with self._calling(seconds):
            self.tell(call)
            mine = own()
            return mine, self._answers()

    def tell(self, message: object) -> None:
        """Send something to every other rank, which takes it when it needs it. Raises RankFailed."""
        try:
            for other in self._others:
                send(other.line, message)
        except OSError as error:
            raise RankFailed(f"another rank cannot be reached ({type(error).__name__})") from error

    def fail(self, why: str) -> None:
        """End all ranks, because one of them is not what it should be. Raises RankFailed."""
        self._end_with(RankFailed(why))
        assert self.failure is not None
        raise self.failure

    def end(self) -> None:
        """Have the other ranks end, within a few seconds."""
        with self._lock:
            self._ending = True
            self._lock.notify_all()
        self._over.set()
        for other in self._others:
            with suppress(OSError):
                send(other.line, RankCall(END))
        until = time.monotonic() + _END_SECONDS
        for other in self._others:
            try:
                other.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                other.process.kill()
                other.process.wait()
        for other, listener in zip(self._others, self._listeners, strict=False):
            listener.join(_END_SECONDS)
            other.line.close()

    @contextmanager
    def _calling(self, seconds: float) -> Iterator[None]:
        with self._lock:
            if self.failure is not None:
                raise self.failure
            self._left = seconds
        try:
            yield
        except BaseException as error:
            # The end of the other ranks may show here first, as a sum that broke off.
            if self._gone() and self.failure is not None and error is not self.failure:
                raise self.failure from error
            raise
        finally:
            with self._lock:
                self._left = None
                self._lock.notify_all()
        if self.failure is not None:
            raise self.failure

    def _gone(self) -> bool:
        """True where a rank has failed, or is found to have within a moment."""
        with self._lock:
            return self._lock.wait_for(lambda: self.failure is not None, _POLL_SECONDS)

    def _answers(self) -> list[Any]:
        with self._lock:
            self._lock.wait_for(
                lambda: self.failure is not None or all(other.answers for other in self._others)
            )
            if self.failure is not None:
                raise self.failure
            return [other.answers.popleft() for other in self._others]

    def _listen(self, other: _OtherRank) -> None:
        try:
            while True:
                done, value = received(other.line)
                if not done:
                    self._end_with(RankFailed(f"rank {other.number} failed: {value}"))
                    return
                with self._lock:
                    other.answers.append(value)
                    self._lock.notify_all()
        except (EOFError, OSError):
            with suppress(subprocess.TimeoutExpired):
                other.process.wait(_END_SECONDS)
            status = other.process.returncode
            self._end_with(RankFailed(f"rank {other.number} has ended (exit status {status})"))
        except Exception as error:  # noqa: BLE001  (whatever it was: the line says nothing any more)
            self._end_with(RankFailed(f"rank {other.number} cannot be understood ({type(error).__name__})"))

    def _watch(self) -> None:
        """See that each call ends in time, as long as this process runs: one that was suspended has not waited."""
        last = time.monotonic()
        while not self._over.wait(_POLL_SECONDS):
            now = time.monotonic()
            ran, last = min(now - last, 4 * _POLL_SECONDS), now
            with self._lock:
                if self._left is None:
                    continue
                self._left -= ran
                silent = [str(other.number) for other in self._others if not other.answers]
                late = self._left <= 0
            if late:
                self._end_with(RankFailed(f"rank {', '.join(silent) or '0'} did not answer in time"))
                return

    def _end_with(self, error: RankFailed) -> None:
        """Kill the other ranks, and tell of it; the first error only."""
        with self._lock:
            if self._ending or self.failure is not None:
                return
            self.failure = error
            self._lock.notify_all()
        self._over.set()
        for other in self._others:
            other.process.kill()
        threading.Thread(target=self._told, args=(error,), name="rank failure", daemon=True).start()

    def _told(self, error: RankFailed) -> None:
        with self._lock:
            stuck = not self._lock.wait_for(lambda: self._left is None, _GRACE_SECONDS)
        self._failed(error, stuck)


def _started(number: int, command: Sequence[str], settings: Mapping[str, str]) -> _OtherRank:
    mine, its = socket.socketpair()
    with its:
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        try:
            process = subprocess.Popen(
                # -P: not what lies in the working directory, but what this process imports.
                [sys.executable, "-P", *command, str(its.fileno()), str(number)],
                stdin=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
                env={**os.environ, "PYTHONPATH": path, **settings},
            )
        except BaseException:
            mine.close()
            raise
    return _OtherRank(number, process, Connection(mine.detach()))
