"""What the operator decides, read once from flags, environment and a settings file into a frozen object.

Flags win over the environment (`SAE_MONITOR_LISTEN=…`), the environment wins over the file (YAML, `listen: …`), and
the file wins over the defaults written here. No other module reads any of the three.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from monitor.errors import ConfigurationError

PREFIX = "SAE_MONITOR_"
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


Seconds = Annotated[float, Field(gt=0, le=86_400)]
Count = Annotated[int, Field(ge=1)]

MASKS = {
    # A match begins only where a run of these does, or right behind another one: tried at each place of a long word, it
    # would cost the square of its length.
    "email": re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+(?:[.+][\w.+-]*@[\w-]+(?:\.[\w-]+)+)*"),
    "number": re.compile(r"\+?\d(?:[ ./()-]{0,2}\d){3,}"),
}
"""What is cut out of logged text unless the operator says otherwise: addresses, and numbers of four digits or more."""


def _plain(value: object) -> object:
    """A folder by any type; YAML 1.1 readers and people alike write `off` as a boolean."""
    if value is False:
        return "off"
    return str(value) if isinstance(value, Path) else value


Address = Annotated[str, AfterValidator(_checked_address)]


class Settings(BaseSettings):
    """Everything that `sae-monitor serve` can be told. There is no field `port`: a Kubernetes service named
    sae-monitor sets SAE_MONITOR_PORT to something else.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, protected_namespaces=()
    )

    settings: Path | None = None
    """YAML file with any of the settings below, by the same names. Given by flag or SAE_MONITOR_SETTINGS."""

    model: str | None = None
    """Hugging Face name or folder of the language model. None is the bundled demo model."""

    dictionary: Path | None = None
    """The sparse autoencoder: a folder, a weights file, or `hub:org/name[@revision][/folder]`. None is the bundled
    demo model's; another model needs its own."""

    dictionary_format: str | None = None
    """Checkpoint family of the dictionary, such as `saelens`. None finds it from the files."""

    policies: Path | None = None
    """Folder of policy files. None is the bundled policies."""

    reload_seconds: Annotated[float, Field(ge=0, le=3600)] = 2.0
    """How often the policy folder is looked at; changed files are loaded while serving. 0: only when asked."""

    activation_label_sets: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Features of policies with activation metrics of their own, fifteen series each; others count as `other`."""

    reload_features: Annotated[int, Field(ge=0, le=100_000)] = 256
    """Room for features that only later policy sets name. More cost a little memory and compute."""

    caller_clamps: Literal["none", "suppress", "any"] = "suppress"
    """Which clamps requests may bring: none, targets of 0 and below, or amplifying ones too. Policies' clamps can only
    ever be strengthened.
    """

    drop_error_term: bool = False
    """Let requests drop the error term. Holds the whole dictionary on the device, as a policy that drops it does."""

    listen: Address = "127.0.0.1:50051"
    """Where gRPC is served. Beyond this machine only with `callers` or `tls_client_ca`, or `insecure_listen`."""

    metrics_listen: Address = "127.0.0.1:9464"
    """Where Prometheus scrapes `/metrics`."""

    reflection: bool | None = None
    """Serve gRPC reflection, so that tools such as grpcurl need no proto files. None does so on this machine only,
    and only where no caller has to say who it is.
    """

    device: str = "auto"
    """Device of the model and the dictionary: `auto`, `cpu`, `cuda`, `cuda:1`… or `spread` over all of them, for a
    model too large for one (needs the extra `spread`). What really lies on several runs one request per pass.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number type of the model's weights. `auto` takes what the device computes well."""

    layer: Annotated[int, Field(ge=0)] | None = None
    """Decoder layer whose output is read. None takes the dictionary's, or else the middle one."""

    skip_self_test: bool = False
    """Start without checking that the dictionary does on this model what it should. Logged, and a metric."""

    context_limit: Annotated[int, Field(ge=2)] | None = None
    """Most tokens of a request, prompt and response together. None is the model's own context."""

    max_message_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 4 << 20
    """Largest gRPC message that is taken; a larger one is refused with RESOURCE_EXHAUSTED."""

    max_concurrent_calls: Annotated[int, Field(ge=1)] = 256
    """Calls in progress at once; one more is refused with RESOURCE_EXHAUSTED and a retry delay."""

    queue_size: Annotated[int, Field(ge=1)] = 256
    """Generations that may wait, and four times as many texts to score, before more are refused."""

    max_running: Annotated[int, Field(ge=1, le=4096)] = 64
    """Most generations in one forward pass, or that take turns where a pass runs one."""

    max_batch_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens in one forward pass; longer prompts are split. None lets the engine choose for its device."""

    max_cache_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens whose keys and values are held at once. None lets the engine choose for its device."""

    retry_after_seconds: Annotated[float, Field(gt=0, le=3600)] = 1.0
    """The delay that a refused caller is told to wait."""

    stall_seconds: Annotated[float, Field(ge=0, le=86_400)] = 300.0
    """Where requests are there and no pass has ended for so long, the process ends with exit code 3, so that its
    supervisor starts another. Longer than any pass of a slow machine; 0: never.
    """

    grace_seconds: Annotated[float, Field(ge=0, le=3600)] = 20.0
    """After SIGTERM: how long calls in progress may take. Shorter than Kubernetes' 30 seconds to the kill."""

    # Who may call, and how much of what.

    callers: Path | None = None
    """File of callers: one JSON object per line with name, roles and the hash of a token. None asks nobody who they
    are, which is refused beyond this machine. `sae-monitor token new NAME` writes lines for it.
    """

    insecure_listen: bool = False
    """Listen beyond this machine although nobody has to say who they are, or although tokens travel unencrypted."""

    tls_certificate: Path | None = None
    """PEM file of the server's certificate and the chain below the root. Read again whenever it changes."""

    tls_key: Path | None = None
    """PEM file of the certificate's private key, without a password."""

    tls_client_ca: Path | None = None
    """PEM file of authorities; only clients with a certificate of one of them may connect."""

    tls_minimum: Literal["1.2", "1.3"] = "1.2"
    """Oldest version of TLS that calls are taken over."""

    max_calls_per_caller: Count | None = None
    """Calls that one named caller may have in progress. None is half of max_concurrent_calls."""

    max_tokens_per_caller: Count | None = None
    """Tokens of prompts and answers that one named caller may have in progress. None sets no limit."""

    max_call_seconds: Seconds = 600.0
    """Longest call, whatever deadline its caller gives."""

    max_message_seconds: Seconds = 10.0
    """Longest time from the beginning of a call until its message is there."""

    max_header_bytes: Annotated[int, Field(ge=1024, le=1 << 20)] = 16 << 10
    """Headers of a call, as HTTP/2 counts them; more is refused with RESOURCE_EXHAUSTED."""

    max_connections: Count = 1024
    """Open connections; one more is closed at once."""

    max_calls_per_connection: Count = 1024
    """Calls in progress on one connection; further ones wait in the client."""

    max_connection_seconds: Seconds = 3600.0
    """Age at which a connection is closed; its calls get max_call_seconds to finish, and clients connect again."""

    handshake_seconds: Seconds = 10.0
    """Longest time until a new connection has said that it speaks HTTP/2 (and TLS, where that is asked for)."""

    idle_seconds: Seconds = 300.0
    """A connection without calls is closed after this time."""

    keepalive_seconds: Seconds = 30.0
    """How often silent connections are asked for a sign of life; half of this time without one closes them."""

    min_ping_seconds: Seconds = 10.0
    """A client that pings more often than this is disconnected."""

    memory_limit_bytes: Count | None = None
    """Memory that this process may use. None is the limit of its control group, or the machine's memory."""

    memory_watermark: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of that memory beyond which new calls are refused with RESOURCE_EXHAUSTED."""

    # Conversations whose scores are kept.

    session_limit: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """Most conversations whose scores are kept, all callers together. The one that was used longest ago goes first; its
    next request gets the verdict UNKNOWN (`session_lost`) from policies that add up over sessions. Each takes a few
    kilobytes, and four bytes per token of its last request."""

    session_ttl_seconds: Annotated[float, Field(gt=0, le=31_536_000)] = 3600.0
    """After so long without a request a conversation is dropped in the same way."""

    # Decisions, spans and log lines.

    decision_log: Annotated[str, BeforeValidator(_plain), Field(min_length=1)] = "auto"
    """Folder of the decision log, `off`, or `auto`: a folder of this user and this port, and off on port 0."""

    decision_log_records: Literal["detections", "all"] = "detections"
    """Which requests get a record: those with a detection, an action or a monitoring failure; or all."""

    decision_log_on_full: Literal["refuse", "drop"] = "refuse"
    """When a record cannot be written: refuse the request (UNAVAILABLE), or answer it and count the loss."""

    decision_log_text: bool = False
    """Write prompts and released responses into records, masked."""

    decision_log_masks: dict[str, re.Pattern[str]] = MASKS
    """Regular expressions by name; what they match in logged text becomes `[name]`. Replaces the two built in."""

    decision_log_salt_file: Path | None = None
    """File with at least 16 bytes of key for prompt hashes. None is a key of this process, gone when it ends."""

    decision_log_readings: bool = False
    """Write the readings of watched features for every token, so that a record can be replayed."""

    decision_log_file_bytes: Annotated[int, Field(ge=4096)] = 64 << 20
    """A file of the log that is this large is closed and another begun."""

    decision_log_file_seconds: Annotated[float, Field(gt=0)] = 86400.0
    """So is one that is this old."""

    decision_log_keep_files: Annotated[int, Field(ge=1)] | None = None
    """Most files that are kept, the newest included. None keeps any number."""

    decision_log_keep_bytes: Annotated[int, Field(ge=4096)] | None = 1 << 30
    """Most bytes that are kept. None keeps any number."""

    decision_log_keep_seconds: Annotated[float, Field(gt=0)] | None = None
    """Files whose last record is older are deleted. None keeps them for ever."""

    watch_subscribers: Annotated[int, Field(ge=0)] = 16
    """WatchDetections streams at once; one more is refused with RESOURCE_EXHAUSTED."""

    otlp_endpoint: str | None = None
    """Where spans are sent over OTLP/gRPC, such as http://127.0.0.1:4317. Needs the extra `otel`."""

    trace_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of requests that are traced where the caller did not decide."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged."""

    log_format: Literal["console", "json"] = "console"
    """Lines for people, or one JSON object per line."""

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
        return {} if path is None else _read(Path(path))

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Part of the base class; values come all at once from `__call__`."""
        return None, field_name, False


def load_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """Settings from flags (None means not given), the environment and the settings file.

    Raises ConfigurationError that names each wrong setting, what was found and what is expected.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        return Settings(**given)
    except (ValidationError, SettingsError) as error:
        raise ConfigurationError(_explain(error, given)) from None


def _read(path: Path) -> dict[str, Any]:
    """The mapping in a settings file. Raises ConfigurationError where there is none."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ConfigurationError(
                f"{path}: larger than {_LARGEST_FILE} bytes; this is not a settings file"
            )
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except (YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigurationError(f"{path}: not YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigurationError(
            f"{path}: write one `name: value` per line, such as `listen: 127.0.0.1:50051`"
        )
    if "settings" in content:
        raise ConfigurationError(f"{path}: a settings file cannot name another; remove `settings`")
    return {name: value for name, value in content.items() if value is not None}


def _explain(error: ValidationError | SettingsError, flags: Mapping[str, Any]) -> str:
    """One line for each wrong setting: where it was given, its name, what was found, what is expected."""
    if isinstance(error, SettingsError):
        return str(error)
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{name}: there is no such setting; there are {', '.join(Settings.model_fields)}")
            continue
        expected = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{_where(name, flags)}: found {problem['input']!r}: {expected}")
    return "\n".join(lines)


def _where(name: str, flags: Mapping[str, Any]) -> str:
    """The name under which the operator gave a setting: flag, variable or entry of the file."""
    if name in flags:
        return f"--{name.replace('_', '-')}"
    variable = PREFIX + name.upper()
    return variable if os.environ.get(variable) else f"settings file: {name}"


class ClientSettings(BaseSettings):
    """Who this command line is to servers that it connects to; from the environment only, so that no token stands
    in a list of processes.
    """

    model_config = SettingsConfigDict(env_prefix="SAE_MONITOR_CLIENT_", frozen=True, env_ignore_empty=True)

    token: SecretStr | None = None
    """Sent as `authorization: Bearer …`."""

    token_file: Path | None = None
    """File that holds the token and nothing else."""

    ca: Path | None = None
    """PEM file of authorities that a server's certificate is checked against. Given, calls go over TLS."""

    certificate: Path | None = None
    """PEM file of this client's own certificate, for servers that ask for one."""

    key: Path | None = None
    """PEM file of that certificate's key."""


def decision_folder(settings: Settings, port: int) -> Path | None:
    """The folder that `decision_log` stands for on a server with this gRPC port; None where it is off."""
    chosen = settings.decision_log
    if chosen == "off" or (chosen == "auto" and port == 0):
        return None
    if chosen != "auto":
        return Path(chosen)
    # systemd gives the unit a folder of its own; elsewhere https://specifications.freedesktop.org/basedir-spec
    if unit := os.environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(unit) / "decisions" / str(port)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "sae-monitor" / "decisions" / str(port)
