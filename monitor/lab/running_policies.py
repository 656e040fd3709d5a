"""What policies run on, as the commands that read texts have it: the pair, with its names and its width.

Knows how a pair becomes what policies are resolved for. Does not know what the commands do with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from monitor.policy.files.loader import load_policies
from monitor.policy.files.resolve import applies
from monitor.policy.files.source import Running, Source
from monitor.policy.policyset import PolicySet

if TYPE_CHECKING:
    from monitor.lab.readings import PairReader
from monitor.policy.fit.rule_scorers import RuleScorer, RunningRuleScorer, locked_scorers, phase_of
from monitor.policy.fit.thresholds import poolings
from monitor.policy.policy import Policy, Rule
from monitor.policy.rules.program import compile_program


def running_of(reader: PairReader) -> Running:
    """The reader's model and dictionary, as policies are resolved for them."""
    pair = reader.pair
    return Running(
        pair.loaded.digest,
        pair.dictionary.digest,
        pair.dictionary.autoencoder.features,
        reader.maxima.tolist(),
        pair.loaded.d_model,
        (pair.loaded.name, Path(pair.loaded.name).name),
    )


def load_set(folder: Path, running: Running) -> PolicySet:
    """The policies of a folder that apply to what runs; PolicyError where they do not fit it."""
    return load_policies(
        folder,
        dictionary_digest=running.dictionary,
        model_digest=running.model,
        features=running.features,
        maxima=running.maxima,
        width=running.width,
        names=running.names,
    )


def bound_elsewhere(source: Source, running: Running) -> str:
    """Which models a policy is bound to, where the running one is none of them; otherwise empty."""
    match = source.model.match
    if match is None or match.models is None or applies(source, running):
        return ""
    return f"bound to {', '.join(match.models)}"


def tried(source: Source, policies: PolicySet) -> list[RuleScorer]:
    """Every rule, in the order of the file: by its lock where that has its threshold, otherwise as it runs."""
    owner = _owner(source, policies)
    locked: dict[str, RuleScorer] = {}
    if source.lock is not None:
        locked = {one.rule: one for one in locked_scorers(source.model, source.lock, source.path.parent)}
    how = poolings(source.model)[0]
    return [locked.get(rule.name) or RunningRuleScorer(owner, rule, how) for rule in owner.rules]


def notes_on(source: Source, policies: PolicySet) -> list[str]:
    """What somebody who reads the tables must know of a policy's rows."""
    owner, model = _owner(source, policies), source.model
    name = model.metadata.name
    notes = [f"{name}/{rule.name}: {_combined(owner, rule)}" for rule in owner.rules if rule.when is not None]
    if model.concept is None and owner.rules:
        notes.append(f"{name}: learnt from no examples, so it has no card, and no baselines stand beside it")
    if not owner.rules:
        notes.append(f"{name}: has no rules, it only clamps; `policy cost` measures that")
    elif model.concept is not None and len(owner.rules) > 1:
        notes.append(f"{name}: sources and texts are shown for its first rule, `{owner.rules[0].name}`")
    alone = [rule.name for rule in owner.rules if rule.session]
    alone += [part.name for part in owner.conditions if part.session]
    if alone:
        names = ", ".join(alone)
        notes.append(
            f"{name}: {names} add up over a conversation; here each text is a conversation of its own"
        )
    return notes


def _combined(owner: Policy, rule: Rule) -> str:
    program, phase = compile_program((owner,)), phase_of(rule)
    combined = [one.name for one in owner.rules if one.when is not None]
    leaves = [program.checks[int(program.leaves[i])] for i in program.parts[combined.index(rule.name)]]
    deaf = [leaf.name for leaf in leaves if phase not in leaf.phases]
    text = (
        "combines conditions; its AUROC and recall rank texts by the margin of the combination, each condition where "
        "it comes nearest, so `for` and `lasts` count only in what is caught and what fires"
    )
    if deaf:
        text += f", and a text is all {phase} here, so `{'`, `'.join(deaf)}` cannot be reached"
    return text


def _owner(source: Source, policies: PolicySet) -> Policy:
    return next(policy for policy in policies.policies if policy.name == source.model.metadata.name)
