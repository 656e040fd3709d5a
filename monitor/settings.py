"""What the operator decides, read once from flags, environment and a settings file into a frozen object.

The only reader of any of the three. Flags win over the environment (`SAE_MONITOR_LISTEN=…`), the environment
wins over the file (YAML, `listen: …`), the file wins over the defaults written here. Does not know what the
values are used for, and opens none of the files that they name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from monitor.errors import ConfigurationError
from monitor.settings_access import AccessSettings
from monitor.settings_decisions import DecisionSettings
from monitor.settings_sessions import SessionSettings

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


Address = Annotated[str, AfterValidator(_checked_address)]


class Settings(AccessSettings, DecisionSettings, SessionSettings):
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
