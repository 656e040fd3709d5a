"""Targets that read files: policies, locks, examples, settings, callers, decision logs."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from monitor.errors import ConfigurationError, PolicyError
from monitor.policy.files.examples import read_examples
from monitor.policy.files.loader import load_policies
from monitor.policy.files.lock import write_lock
from monitor.policy.files.lock_folders import lock_path
from monitor.rpc.access.callers import entry_line, new_token, read_callers
from monitor.rpc.access.roles import Role
from monitor.rpc.assembly import bundled_policies
from monitor.settings import load_client_settings, load_settings
from monitor.telemetry.decisions import codec, lines
from monitor.telemetry.decisions.reader import read, verify
from monitor.telemetry.decisions.record import DecisionRecord, from_json
from tests.fuzz.target import ACCEPTED, REFUSED, BytesTarget, refused
from tests.policy.policy_files import (
    CONCEPT,
    DICTIONARY,
    EXAMPLES,
    MODEL,
    PAIR,
    PINNED,
    lock_for,
    write_policy,
)

_MEMORY = Path("/dev/shm")
_FEATURES = 100


class FolderTarget(BytesTarget):
    """Inputs are written into a folder of their own, in memory where there is such a place."""

    folder: Path

    @contextmanager
    def opened(self) -> Iterator[None]:
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None))
        try:
            self.prepare()
            yield
        finally:
            shutil.rmtree(self.folder)

    def prepare(self) -> None:
        """Write what stands beside the input."""


def _loaded(folder: Path) -> str:
    try:
        load_policies(folder, dictionary_digest=DICTIONARY, model_digest=MODEL, features=_FEATURES)
    except PolicyError as error:
        return refused(error)
    return ACCEPTED


class Policies(FolderTarget):
    """A policy file of a folder."""

    name = "policy"
    words = (
        b"concept:", b"features:", b"rules:", b"suppress:", b"metadata:", b"probe:", b"threshold:",
        b"pooling: {kind: ema}",
        b"pooling: max", b"action: block", b"mode: shadow", b"on_error: open",
        b"{false_positive_rate: 0.01}", b"index: 3",
        b"phases: [prompt]", b"hold: 3", b"any:", b"all:", b"not:", b"severity: critical", b"where: everywhere",
    )  # fmt: skip

    def corpus(self) -> Sequence[bytes]:
        shipped = [p.read_bytes() for p in sorted(bundled_policies().glob("*.yaml")) if ".lock" not in p.name]
        return [PINNED.encode(), CONCEPT.encode(), *(text[:8000] for text in shipped)]

    def run(self, data: bytes) -> str:
        (self.folder / "greed.yaml").write_bytes(data)
        return _loaded(self.folder)


class Locks(FolderTarget):
    """The lock of a policy."""

    name = "lock"
    words = (
        b"digest:",
        b"features:",
        b"rules:",
        b"suppress:",
        b"probe:",
        b"sha256:",
        b"threshold:",
        b"attribution:",
    )

    def prepare(self) -> None:
        write_policy(self.folder, CONCEPT)

    def corpus(self) -> Sequence[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            path = write_policy(Path(folder), CONCEPT)
            return [write_lock(path, lock_for(EXAMPLES), PAIR).read_bytes()]

    def run(self, data: bytes) -> str:
        path = lock_path(self.folder / "greed.yaml", PAIR)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return _loaded(self.folder)


class ExampleFiles(FolderTarget):
    """The examples of a concept."""

    name = "examples"
    words = (b'{"text": "', b'"label": "positive"', b'"group": "', b'"hard_negative"', b"\n")

    def corpus(self) -> Sequence[bytes]:
        rows = [
            b'{"text": "mine", "label": "positive"}',
            b'{"text": "yours", "label": "negative", "group": "a"}',
        ]
        return [b"\n".join(rows), b"\n".join(rows * 5 + [b'{"text": "z", "label": "hard_negative"}'])]

    def run(self, data: bytes) -> str:
        path = self.folder / "greed.jsonl"
        path.write_bytes(data)
        try:
            read_examples(path)
        except PolicyError as error:
            return refused(error)
        return ACCEPTED


class SettingsFiles(FolderTarget):
    """A file of settings."""

    name = "settings"
    words = (
        b"listen: ",
        b"127.0.0.1:0",
        b"[::1]:5",
        b"callers: ",
        b"max_running: ",
        b"memory_watermark: ",
        b"settings: x",
        *(
            b"decision_log: false",
            b"decision_log_masks: {a: '['}",
            b"policies: ~/x",
            b"&a [*a]",
            b"*a",
            b"<<: ",
        ),
        *(b"\xef\xbb\xbf", b"\xff\xfe", b"lisen: ", b"0x", b"!!python/name:os.system", b"---"),
    )

    def corpus(self) -> Sequence[bytes]:
        return [
            b"listen: 127.0.0.1:0\nmetrics_listen: '[::1]:0'\nmax_running: 4\ngrace_seconds: 1.5\nlog_format: json\n",
            b"{model: null, device: cpu, dtype: float32, memory_watermark: 0.5, tls_minimum: '1.3'}\n",
        ]

    def run(self, data: bytes) -> str:
        path = self.folder / "settings.yaml"
        path.write_bytes(data)
        try:
            load_settings({"settings": path})
        except ConfigurationError as error:
            return refused(error)
        return ACCEPTED


class Environments(BytesTarget):
    """Variables of a server and of a client, as lines `NAME=value`, and their command line's flags."""

    name = "environment"
    words = (
        *(b"SAE_MONITOR_", b"LISTEN", b"DECISION_LOG", b"DECISION_LOG_MASKS", b"CLIENT_TOKEN", b"_SECONDS"),
        *(
            b"=false",
            b"=auto",
            b"=",
            b"\n",
            b"SETTINGS=",
            b"/dev/null",
            b"{",
            b"SERVICE_HOST",
            b"PORT=tcp://",
        ),
        *(b"=nan", b"=inf", b"=1e999", b"=\xef\xbb\xbf", b"=~/x", b"=${A}", "=\u0665".encode()),
    )

    def corpus(self) -> Sequence[bytes]:
        return [
            b"SAE_MONITOR_LISTEN=127.0.0.1:0\nSAE_MONITOR_QUEUE_SIZE=3\nSAE_MONITOR_CLIENT_TOKEN=abc",
            b'SAE_MONITOR_DECISION_LOG=off\nsae_monitor_decision_log_masks={"card": "[0-9]{16}"}\nPATH=/bin',
            b"SAE_MONITOR_PORT=tcp://10.0.0.1:1\nSAE_MONITOR_SERVICE_HOST=10.0.0.1\nSAE_MONITOR_RELOAD_SECONDS=0.5",
        ]

    def run(self, data: bytes) -> str:
        given = [line.partition(b"=") for line in data.replace(b"\0", b"").split(b"\n")]
        variables = {
            os.fsdecode(name): os.fsdecode(value) for name, equals, value in given if name and equals
        }
        flags = {name.lower().removeprefix("sae_monitor_"): value for name, value in variables.items()}
        words = set()
        with _environment(variables):
            words = {_settled(load_settings), _settled(load_client_settings)}
        with _environment({}):
            words.add(_settled(lambda: load_settings(flags)))
        return ACCEPTED if ACCEPTED in words else REFUSED


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The process with these variables alone."""
    before = dict(os.environ)
    os.environ.clear()
    try:
        os.environ.update(variables)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _settled(load: Callable[[], object]) -> str:
    try:
        load()
    except ConfigurationError as error:
        if len(str(error)) > 1 << 16:
            raise AssertionError("an error that nobody can read") from error
        return refused(error)
    return ACCEPTED


class CallerFiles(FolderTarget):
    """A file of callers."""

    name = "callers"
    words = (
        b'"name"',
        b'"roles"',
        b'"infer"',
        b'"sha256"',
        b'"certificate"',
        b'"expires"',
        b'"calls"',
        b'"tokens"',
    )

    def corpus(self) -> Sequence[bytes]:
        line = entry_line("gateway", [Role.INFER, Role.ADMIN], new_token())
        other = (
            b'{"name": "a", "roles": ["inspect"], "certificate": "b", "expires": "2030-01-01", "calls": 3}'
        )
        return [line.encode(), b"# who may call\n\n" + line.encode() + b"\n" + other + b"\n"]

    def run(self, data: bytes) -> str:
        path = self.folder / "callers"
        path.write_bytes(data)
        try:
            read_callers(path)
        except ConfigurationError as error:
            return refused(error)
        return ACCEPTED


class DecisionLogs(FolderTarget):
    """A file of the decision log, torn, changed or forged with a checksum that fits."""

    name = "decisions"
    words = (
        b'"seq":',
        b'"crc32":"',
        b'"kind":"decision"',
        b'"time":',
        b'"detections":[',
        b"\n",
        b'"schema":',
    )

    def corpus(self) -> Sequence[bytes]:
        found = []
        for kind in ("decision", "start"):
            content = {"schema": 1, "kind": kind, "time": "2026-01-01T00:00:00+00:00", "request_id": "a" * 32}
            found.append(b"".join(lines.seal(seq, lines.body(content)) for seq in range(1, 5)))
        return found

    def mutate(self, data: bytes, chance: random.Random, corpus: Sequence[bytes]) -> bytes:
        changed = super().mutate(data, chance, corpus)
        # Half of them with checksums that fit, or nothing behind the checksum would ever be reached.
        return changed if chance.random() < 0.5 else b"\n".join(map(_resealed, changed.split(b"\n")))

    def run(self, data: bytes) -> str:
        path = self.folder / "decisions-0000000000000001.jsonl"
        path.write_bytes(data)
        records = list(read(self.folder))
        verify(self.folder)
        for content in records:
            try:
                assert isinstance(from_json(content), DecisionRecord)
            except ValueError:
                continue
        return ACCEPTED if records else REFUSED


def _resealed(line: bytes) -> bytes:
    head = line.rpartition(b',"crc32":"')[0]
    return b'%s,"crc32":"%08x"}' % (head, zlib.crc32(head)) if head else line


__all__ = [
    "CallerFiles",
    "DecisionLogs",
    "Environments",
    "ExampleFiles",
    "Locks",
    "Policies",
    "SettingsFiles",
    "codec",
]
