"""Test files of policies, `NAME.test.yaml`: the models of their fields, and the code that runs a case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from monitor.policy.files.diagnostics import validate
from monitor.policy.files.source import Source
from monitor.policy.files.yaml_document import PolicyProblems, Problem, read_document
from monitor.policy.policy import Check, Policy
from monitor.policy.schema.base import FieldCheck, places
from monitor.policy.schema.policy import Name, Strict, Text, refuse
from monitor.records import Phase, Probe, Readings, Signal, Status, TokenBlock, WatchPlan

if TYPE_CHECKING:
    from monitor.policy.policyset import PolicySet

UNSCORED = "(could not be scored)"
"""Stands among the rules that fired where readings are not finite, so that such a text never counts as quiet."""
TextReader = Callable[[str, str, WatchPlan], tuple[Readings, Readings]]
"""Reads a prompt and a response, either of which may be empty: the readings `[tokens, watched]` of each for a watch
plan. The first row of all is that of a token that rules pass over."""

Series = Annotated[dict[str, list[float]], Field(min_length=1)]


class PromptAndResponse(Strict):
    """A prompt with the response to it."""

    prompt: Text
    """What the caller sent."""
    response: Text
    """What the model wrote. It is read behind the prompt, as its answer where the model has a chat template."""


def _form(value: Any) -> str:
    return "(both)" if isinstance(value, dict | PromptAndResponse) else "(text)"


TextOrBoth = Annotated[
    Annotated[Text, Tag("(text)")] | Annotated[PromptAndResponse, Tag("(both)")], Discriminator(_form)
]


class Case(Strict):
    """One case of a test file: readings or texts, and the rules that must fire on them."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    readings: Series | None = None
    """Readings of each token, position 0 first. The key says of what: a feature's index, `all` features that the rules
    read, `positive` for those with a positive weight, `probe`, or the name of a signal. `all` and `positive` include
    the probe."""
    response_readings: Series | None = None
    """Readings of the tokens that the model wrote after those of `readings`, which are then the prompt's."""
    texts: Annotated[list[TextOrBoth], Field(min_length=1)] | None = None
    """Texts for the running model to read, instead of readings. Where a rule needs both, write `{prompt: …, response:
    …}` in place of a text."""
    phase: Annotated[Phase, Field(strict=False)] = Phase.PROMPT
    """Who wrote the tokens: `prompt` for the caller, `response` for the model. Not where both did."""
    fires: list[Name]
    """The rules that must fire; no other may. Empty means that none may fire."""
    at_least: Annotated[int, Field(ge=1)] | None = None
    """On how many of the texts the rules must fire. Left out, on all of them."""
    at_most: Annotated[int, Field(ge=0)] | None = None
    """With `fires: []`: on how many of the texts a rule may fire all the same. Left out, on none."""

    def checks(self) -> Iterable[FieldCheck]:
        """Check the fields against each other.

        A case has readings or texts. Its lists of readings are equally long. `at_least` needs texts and rules in
        `fires`, `at_most` needs texts and an empty `fires`. No field stands where it would change nothing.
        """
        yield from (self._one_source, self._counted_texts, self._counts, self._reachable, self._both_phases)
        yield from (self._once, self._equally_long, self._response_equally_long)

    def _one_source(self) -> None:
        if (self.readings is None) == (self.texts is None):
            raise refuse([], "a case needs either `readings:` or `texts:`")

    def _counted_texts(self) -> None:
        for name in ("at_least", "at_most"):
            if getattr(self, name) is not None and self.texts is None:
                raise refuse(
                    [name],
                    f"`{name}` counts texts; beside `readings` remove it, for they fire or they do not",
                )
        if self.response_readings is not None and self.readings is None:
            raise refuse(
                ["response_readings"], "`response_readings` needs `readings:`, those of the prompt before it"
            )

    def _counts(self) -> None:
        if self.at_least is not None and not self.fires:
            raise refuse(
                ["at_least"], "`at_least` needs rules in `fires`; beside `fires: []` write `at_most`"
            )
        if self.at_most is not None and self.fires:
            raise refuse(["at_most"], "`at_most` needs `fires: []`; beside rules in `fires` write `at_least`")

    def _reachable(self) -> None:
        """Refuses numbers of texts with which a case could not pass, or could not fail."""
        texts = len(self.texts or ())
        if self.at_least is not None and self.texts is not None and self.at_least > texts:
            raise refuse(["at_least"], f"there are {texts} texts here; write {texts} at most, or more texts")
        if self.at_most is not None and self.texts is not None and self.at_most >= texts:
            raise refuse(
                ["at_most"], f"rules may fire on all of the {texts} texts then; write {texts - 1} at most"
            )

    def _both_phases(self) -> None:
        both = self.response_readings is not None or any(
            isinstance(one, PromptAndResponse) for one in self.texts or ()
        )
        if both and "phase" in self.model_fields_set:
            raise refuse(["phase"], "`phase` does not go with a prompt and a response; remove it")

    def _once(self) -> None:
        for i, rule in enumerate(self.fires):
            if rule in self.fires[:i]:
                raise refuse(["fires", i], f"`{rule}` stands here twice; name it once")

    def _equally_long(self) -> None:
        _same_length(self.readings, ["readings"])
        if self.readings is not None and len(next(iter(self.readings.values()))) < 2:
            message = "no token is read: rules pass over position 0, so write two readings or more"
            raise refuse(["readings"], message)

    def _response_equally_long(self) -> None:
        _same_length(self.response_readings, ["response_readings"])
        if self.response_readings is not None and not next(iter(self.response_readings.values())):
            raise refuse(["response_readings"], "no token is read; write a reading or more")


def _same_length(series: dict[str, list[float]] | None, at: list[str]) -> None:
    if series is not None and len({len(values) for values in series.values()}) != 1:
        raise refuse(at, "every feature needs one reading per token, so all lists are equally long")


class TestModel(Strict):
    """A test file, `NAME.test.yaml`."""

    __test__ = False
    api_version: Annotated[Literal["monitor/v1"], Field(alias="apiVersion")]
    policy: Name
    cases: Annotated[list[Case], Field(min_length=1)]

    def checks(self) -> Iterable[FieldCheck]:
        """No two cases have one name, for results are told by name."""
        yield from (partial(self._own_name, i) for i in places(self.cases))

    def _own_name(self, i: int) -> None:
        if self.cases[i].name in [earlier.name for earlier in self.cases[:i]]:
            raise refuse(["cases", i, "name"], "a second case has this name; rename one")


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one case."""

    policy: str
    case: str
    passed: bool
    detail: str
    """For texts, the number on which rules fired. For readings, the rules that fired where the case failed. For a case
    that did not run, the reason."""
    skipped: bool = False
    """True for a case that did not run; it has neither passed nor failed."""


def read_tests(source: Source) -> TestModel:
    """The tests beside a policy; PolicyProblems where there are none or they do not fit the policy."""
    path = test_path(source.path)
    if not path.exists():
        hint = f"write {path.name} with a case that fires and one that does not"
        raise PolicyProblems([Problem(str(path), 1, 1, f"`{source.model.metadata.name}` has no test", hint)])
    document = read_document(path)
    tests = validate(document, TestModel)
    known = {rule.name for rule in source.model.rules}
    problems = [
        document.problem(
            ["cases", i, "fires", j], f"there is no rule `{rule}`", f"rules: {', '.join(sorted(known))}"
        )
        for i, case in enumerate(tests.cases)
        for j, rule in enumerate(case.fires)
        if rule not in known
    ]
    if tests.policy != source.model.metadata.name:
        problems.append(document.problem(["policy"], "names another policy", source.model.metadata.name))
    if problems:
        raise PolicyProblems(problems)
    return tests


def test_path(policy: Path) -> Path:
    """`NAME.test.yaml` beside `NAME.yaml`."""
    return policy.with_name(policy.stem + ".test.yaml")


test_path.__test__ = False  # type: ignore[attr-defined]


def run_case(policy: Policy, case: Case, read: TextReader | None) -> Result | None:
    """Run a case on the policy. Returns None for a case on texts where there is no `read`, and so no model."""
    from monitor.policy.policyset import PolicySet

    # A case says what fires, whichever requests the policy is bound to.
    alone = PolicySet((replace(policy, match=None),), "")
    if case.readings is not None:
        found = _fired(alone, _blocks(policy, alone, case))
        passed = found == set(case.fires)
        detail = "" if passed else f"fired: {', '.join(sorted(found)) or 'nothing'}"
        return Result(policy.name, case.name, passed, detail)
    if read is None:
        return None
    fired = [_fired(alone, _read(read, alone, text, case.phase)) for text in case.texts or []]
    return _judge(policy.name, case, fired)


def _judge(policy: str, case: Case, fired: Sequence[set[str]]) -> Result:
    wanted = set(case.fires)
    if not wanted:
        hits = sum(bool(found) for found in fired)
        most = case.at_most or 0
        return Result(policy, case.name, hits <= most, f"fired on {hits} of {len(fired)}, at most {most}")
    hits = sum(found == wanted for found in fired)
    least = case.at_least or len(fired)
    return Result(policy, case.name, hits >= least, f"fired on {hits} of {len(fired)}, at least {least}")


Phases = Sequence[tuple[Phase, Readings]]


def _blocks(policy: Policy, alone: PolicySet, case: Case) -> Phases:
    """What the tokens of a case on readings read."""
    written = [(case.phase, case.readings), (Phase.RESPONSE, case.response_readings)]
    return [(phase, _synthetic(policy, alone, series)) for phase, series in written if series is not None]


def _read(read: TextReader, alone: PolicySet, text: str | PromptAndResponse, phase: Phase) -> Phases:
    """What the model reads in a text, or in a prompt and its response."""
    if isinstance(text, str):
        asked = phase is Phase.PROMPT
        return [(phase, read(text, "", alone.watch)[0] if asked else read("", text, alone.watch)[1])]
    prompt, response = read(text.prompt, text.response, alone.watch)
    return [(Phase.PROMPT, prompt), (Phase.RESPONSE, response)]


def _fired(policies: PolicySet, phases: Phases) -> set[str]:
    observer, start = policies.start(str), 0
    found: set[str] = set()
    for phase, readings in phases:
        block = TokenBlock(phase, start, tuple(range(start, start + len(readings))), readings)
        found |= {detection.rule for detection in observer.observe(block).detections}
        start += len(readings)
    return found if observer.status is Status.CHECKED else {*found, UNSCORED}


def _synthetic(policy: Policy, alone: PolicySet, series: dict[str, list[float]]) -> Readings:
    """Readings `[tokens, watched]` as a case writes them; what it does not name reads zero."""
    import numpy as np

    tokens = len(next(iter(series.values())))
    out = np.zeros((tokens, len(alone.watch)), np.float32)
    for name, values in series.items():
        chosen = _named(policy, alone.watch, name)
        if not chosen:
            hint = "write `all`, `positive`, `probe`, the name of a signal or the index of a feature"
            raise PolicyProblems([Problem(policy.name, 1, 1, f"no rule reads `{name}`", hint)])
        for watched in chosen:
            with np.errstate(over="ignore"):  # infinite readings are reported as UNSCORED
                out[:, alone.watch.column(watched)] = values
    return out


def _named(policy: Policy, watch: WatchPlan, name: str) -> Sequence[int | Probe | Signal]:
    """The features, probes and signals that a name in a case stands for."""
    checks: list[Check] = [*policy.rules, *policy.conditions]
    weights = {feature.index: feature.weight for check in checks for feature in check.features}
    if name in ("all", "positive"):
        return [*(i for i, weight in weights.items() if weight > 0 or name == "all"), *watch.probes]
    if name == "probe":
        return watch.probes
    signals = [signal for signal in watch.signals if signal == name]
    return signals or [index for index in weights if str(index) == name]
