"""`sae-monitor policy cost`: effect against damage of a policy's suppression, over targets and beside its rivals.

Knows how texts, pair and measuring are joined, and where reports go. Does not know how anything is measured.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer

from monitor.cli.options import DeviceOption, DictionaryOption, FormatOption, ModelOption
from monitor.cli.show.console import stderr_console, stdout_console
from monitor.errors import InputError, NotFound, PolicyError
from monitor.lab.pair import Pair, need_statistics, open_pair
from monitor.lab.texts import corpus_files, in_equal_shares
from monitor.policy.files.loader import load_policies, read_folder
from monitor.policy.files.source import Source
from monitor.policy.policy import Policy

if TYPE_CHECKING:
    from monitor.lab.cost.meter import Meter
    from monitor.lab.cost.report import CostReport
    from monitor.lab.cost.texts import CostTexts

LONGEST = 64
"""Tokens that are read of a text."""
EXCERPT = 400
"""Characters of a benign excerpt."""


@dataclass(frozen=True)
class Sizes:
    """How much is run."""

    prompts: int
    head: int
    new: int
    positives: int
    benign: int
    temperature: float
    seed: int


def cost(
    name: Annotated[str, typer.Argument(help="Name of the policy.")],
    policies: Annotated[
        Path | None, typer.Option(help="Folder of policies.", show_default="the bundled ones")
    ] = None,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    labelled: Annotated[
        Path | None,
        typer.Option(
            help="Folder CATEGORY/SOURCE.jsonl; the half that no fit reads judges and is measured on."
        ),
    ] = None,
    benign: Annotated[
        list[Path] | None, typer.Option(help="Files of benign texts; the policies' benign.jsonl by default.")
    ] = None,
    target: Annotated[
        list[float] | None, typer.Option(help="Targets to try, in units of the maximum. Repeatable.")
    ] = None,
    prompts: Annotated[int, typer.Option(min=20, help="Beginnings of held-out positives to continue.")] = 120,
    new: Annotated[int, typer.Option(min=4, max=256, help="Tokens to write behind each.")] = 24,
    head: Annotated[
        int, typer.Option(min=2, max=32, help="Tokens of a beginning, the start token included.")
    ] = 5,
    texts: Annotated[
        int, typer.Option(min=20, help="Most held-out positives and benign texts to read.")
    ] = 120,
    temperature: Annotated[float, typer.Option(min=0, help="Of the continuations; 0 is greedy.")] = 0.8,
    budget: Annotated[
        float, typer.Option(min=0, help="Rise of benign perplexity that may be recommended.")
    ] = 0.02,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for NAME.cost.json, .md and .png.")
    ] = Path(),
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: DeviceOption = "auto",
) -> None:
    """Measure what a policy's suppression does and what it costs, beside a dense direction and other rivals."""
    started = time.monotonic()
    folder = policies or _bundled()
    targets = sorted(set(target or (0.0, -0.5, -1.0, -2.0)), reverse=True)
    if any(wish > 0 for wish in targets):
        raise InputError("a policy suppresses; write targets of 0 and below, e.g. --target -1")
    sizes = Sizes(prompts, head, new, texts, texts, temperature, seed)
    source, pair = _found(folder, name), open_pair(model, dictionary, device)
    report = _measured(source, folder, pair, labelled, benign or [], targets, sizes, budget)
    written = _written(report, output)
    stdout_console().print(f"{written} written in {time.monotonic() - started:.0f} s", soft_wrap=True)


def _written(report: CostReport, output: Path) -> Path:
    """Shows the report and writes its three files; the one for people."""
    from monitor.lab.cost.picture import draw_cost
    from monitor.lab.cost.report import advice_lines

    console = stdout_console()
    console.print(report.table())
    for line in advice_lines(report):
        console.print(line, soft_wrap=True)
    output.mkdir(parents=True, exist_ok=True)
    name = report.policy
    picture = draw_cost(report.points, f"{name}: effect against damage", output / f"{name}.cost.png")
    (output / f"{name}.cost.json").write_text(report.as_json(), encoding="utf-8")
    path = output / f"{name}.cost.md"
    path.write_text(report.markdown(picture), encoding="utf-8")
    return path


def _measured(
    source: Source,
    folder: Path,
    pair: Pair,
    labelled: Path | None,
    benign: Sequence[Path],
    targets: Sequence[float],
    sizes: Sizes,
    budget: float,
) -> CostReport:
    from monitor.lab.cost.advice import advise
    from monitor.lab.cost.edits import ways
    from monitor.lab.cost.report import CostReport
    from monitor.lab.cost.texts import cost_texts

    policy = _resolved(folder, source.model.metadata.name, pair)
    calm = [text[:EXCERPT] for text in _first(benign, 4 * sizes.benign)]
    found = cost_texts(source, labelled, calm)
    with stderr_console().status("learning a judge") as status:
        meter, told = _meter(pair, policy, found, sizes)
        direction = _direction(pair, found, sizes)
        points = []
        for way in ways(pair, policy, direction, targets):
            status.update(f"{way.name} at {way.strength:g}")
            points.append(meter.point(way.name, way.strength, way.edit))
    return CostReport(
        policy=policy.name,
        model=pair.loaded.digest,
        dictionary=pair.dictionary.digest,
        points=tuple(points),
        advice=advise(points, budget),
        written=policy.clamps[0].target,
        texts=told,
    )


def _meter(pair: Pair, policy: Policy, texts: CostTexts, sizes: Sizes) -> tuple[Meter, dict[str, Any]]:
    from monitor.lab.cost.judge import learn_judge
    from monitor.lab.cost.meter import Meter, Prepared
    from monitor.lab.cost.texts import spread

    ending = [(row, _ending(pair, row.text, sizes)) for row in texts.judge]
    taught = [(row, text) for row, text in ending if text.strip()]
    calm = [_ending(pair, text, sizes) for text in texts.benign]
    judge = learn_judge(
        [text for _, text in taught],
        [row.positive for row, _ in taught],
        [row.group for row, _ in taught],
        [text for text in calm if text.strip()],
    )
    positives = spread([row for row in texts.measured if row.positive], 10**6)
    ids = [pair.ids(row.text)[:LONGEST] for row in positives]
    heads = [own[: sizes.head] for own in ids if len(own) > sizes.head][: sizes.prompts]
    if len(heads) < min(sizes.prompts, 20):
        raise InputError(
            f"{len(heads)} held-out positives are longer than {sizes.head} tokens; give more texts"
        )
    prepared = Prepared(
        positives=[own for own in ids if len(own) > 2][: sizes.positives],
        prompts=torch.tensor(heads),
        benign=[own for text in texts.benign if len(own := pair.ids(text)[:LONGEST]) > 2][: sizes.benign],
        new=sizes.new,
        temperature=sizes.temperature,
        seed=sizes.seed,
    )
    told = {
        "prompts": len(heads),
        "new": sizes.new,
        "temperature": sizes.temperature,
        "positives": len(prepared.positives),
        "benign": len(prepared.benign),
        "judge_texts": judge.texts,
        "judge_auroc": judge.auroc,
        "judge_false": judge.false_positives,
        "held_out": texts.held_out,
        "note": texts.note,
    }
    return Meter(pair, policy, prepared, judge), told


def _direction(pair: Pair, texts: CostTexts, sizes: Sizes) -> torch.Tensor:
    from monitor.lab.cost.edits import difference_of_means
    from monitor.lab.cost.texts import spread

    sides = []
    for positive in (True, False):
        rows = spread([row for row in texts.learnt if row.positive is positive], 4 * sizes.positives)
        sides.append([own for row in rows if len(own := pair.ids(row.text)[:LONGEST]) > 1])
    return difference_of_means(pair, *sides)


def _ending(pair: Pair, text: str, sizes: Sizes) -> str:
    """What stands where a continuation would."""
    ids = pair.ids(text)[sizes.head : sizes.head + sizes.new]
    return str(pair.loaded.tokenizer.decode(ids, skip_special_tokens=True))


def _first(files: Sequence[Path], count: int) -> list[str]:
    found: list[str] = []
    if files:
        for text in in_equal_shares(corpus_files(files), EXCERPT):
            found.append(text)
            if len(found) == count:
                break
    return found


def _found(folder: Path, name: str) -> Source:
    sources = {source.model.metadata.name: source for source in read_folder(folder)}
    if name not in sources:
        raise NotFound(f"no policy called {name}; there are {', '.join(sorted(sources))}")
    if sources[name].model.suppress is None:
        raise PolicyError(f"`{name}` has no `suppress:` section; there is nothing to measure")
    return sources[name]


def _resolved(folder: Path, name: str, pair: Pair) -> Policy:
    loaded = load_policies(
        folder,
        dictionary_digest=pair.dictionary.digest,
        model_digest=pair.loaded.digest,
        features=pair.dictionary.autoencoder.features,
        maxima=need_statistics(pair.dictionary).maximum.tolist(),
    )
    return next(policy for policy in loaded.policies if policy.name == name)


def _bundled() -> Path:
    from monitor.rpc.assembly import bundled_policies

    return bundled_policies()
