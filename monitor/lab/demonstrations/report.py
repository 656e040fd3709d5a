"""Demonstrations as Markdown and as JSON: what was chosen, the slider, unedited samples, and the failures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from monitor.lab.cost.points import Share
from monitor.lab.demonstrations.choice import CANDIDATES, POOL
from monitor.lab.demonstrations.demonstration import DEVELOPMENT
from monitor.lab.demonstrations.study import Answers, Demonstrated
from monitor.lab.demonstrations.writer import MEASURED

SAMPLES, FAILURES = 3, 3
HEADS = (
    "demonstration",
    "feature",
    "clamp",
    "worked",
    "shown with",
    "shown without",
    "loops with",
    "perplexity with / without",
    "KL",
)
SLIDER_HEADS = ("clamp", "shown", "loops", "perplexity", "KL")


def rows(found: Sequence[Demonstrated]) -> list[tuple[str, ...]]:
    """A row of words for each demonstration, under `HEADS`."""
    return [
        (
            one.demonstration.title,
            f"{one.choice.chosen.feature} {one.choice.chosen.label}".strip(),
            str(one.choice.setting),
            f"{sum(one.worked)} of {len(one.worked)} ({_interval(one.share)})",
            _percent(one.judged.share),
            _percent(one.plain.share),
            _percent(one.judged.loops),
            f"{_number(one.judged.distance.perplexity)} / {_number(one.plain.distance.perplexity)}",
            f"{one.judged.distance.kl:.2f}",
        )
        for one in found
    ]


def slider_rows(one: Demonstrated) -> list[tuple[str, ...]]:
    """A row for no clamp and for each setting, under `SLIDER_HEADS` and the further judgements."""
    return [_answers(answers) for answers in (one.plain, *one.slider)]


def slider_heads(one: Demonstrated) -> tuple[str, ...]:
    """The heads of the slider's table."""
    return (*SLIDER_HEADS, *(judge.says for judge in one.demonstration.also))


def page(found: Sequence[Demonstrated], subject: str) -> str:
    """Everything as a page of Markdown; `subject` says which pair it is about, and how it was measured."""
    lines = ["# What single features do to what the model writes", "", subject, "", *notes(), ""]
    lines += _table(HEADS, rows(found))
    for one in found:
        lines += ["", *_one(one)]
    return "\n".join(lines) + "\n"


def notes() -> list[str]:
    """How to read the numbers."""
    return [
        f"A feature is found by contrast. Of {POOL} that separate texts about the subject from others of the same form "
        f"best, or are most specific to them, {CANDIDATES} are taken that do most to the words by which those texts "
        f"are told; of these the one under which {DEVELOPMENT} development prompts are answered most clearly, as "
        "judged below. They choose the strength as well. No other prompt chose anything. *Shown* is the share of the "
        "measured prompts whose answer is judged to show it, *worked* the prompts on which it is shown with the clamp "
        "and not without, with a "
        "95 % interval (Wilson). Answers are drawn with the same random numbers with and without the clamp. An answer "
        "that loops (of eight words or more less than half are different) or is empty never counts. Perplexity is that "
        f"of the first {MEASURED} written texts for the model without clamps, KL their mean divergence of the next "
        "token from that model, in nats. Samples are the first, and are not edited.",
    ]


def as_json(found: Sequence[Demonstrated], subject: str) -> str:
    """Every number and every text."""
    return (
        json.dumps({"subject": subject, "demonstrations": [_record(one) for one in found]}, indent=1) + "\n"
    )


def samples(one: Demonstrated) -> Iterator[tuple[str, str, str, bool]]:
    """The first prompts: prompt, answer without the clamp and with it, and whether it worked."""
    everything = zip(one.prompts, one.plain.texts, one.judged.texts, one.worked, strict=True)
    for number, sample in enumerate(everything):
        if number < SAMPLES:
            yield sample


def failures(one: Demonstrated) -> list[tuple[str, str, str]]:
    """The first prompts beyond the samples on which it did not work: prompt, and the answers without and with it."""
    everything = list(zip(one.prompts, one.plain.texts, one.judged.texts, one.worked, strict=True))
    return [(prompt, plain, text) for prompt, plain, text, worked in everything[SAMPLES:] if not worked][
        :FAILURES
    ]


def _one(one: Demonstrated) -> Iterator[str]:
    chosen = one.choice.chosen
    yield f"## {one.demonstration.title}"
    yield ""
    yield (
        f"Feature {chosen.feature} ({chosen.label or 'no label'}): AUROC {chosen.auroc:.2f} on the texts of the "
        f"contrast, fires on {chosen.fires:.0%} of those about it and on {chosen.fires_other:.0%} of the others. "
        f"Judged at {one.choice.setting}. Shown: the answer {one.demonstration.judgement.says}."
    )
    yield ""
    yield from _table(slider_heads(one), slider_rows(one))
    yield ""
    for prompt, plain, text, worked in samples(one):
        yield from _sample(prompt, plain, text, "worked" if worked else "did not work")
    missed = len(one.worked) - sum(one.worked)
    yield f"It did not work on {missed} of {len(one.worked)} prompts; the first of them beyond the samples:"
    yield ""
    for prompt, plain, text in failures(one):
        yield from _sample(prompt, plain, text, "did not work")
    yield from _related(one)


def _related(one: Demonstrated) -> Iterator[str]:
    tried = ", ".join(
        f"{c.feature} ({c.label}; {c.degree:.2f})" if c.label else f"{c.feature} ({c.degree:.2f})"
        for c in one.choice.candidates
    )
    yield f"Features that were tried, with how clearly the development prompts were answered: {tried}."
    yield ""
    near = "; ".join(
        f"{n.feature} {n.label} (cosine {n.cosine:.2f}, AUROC {n.auroc:.2f})" for n in one.neighbours.nearest
    )
    yield (
        f"Neighbours by the cosine of decoder rows: {near}. {_percent(one.neighbours.share)} of them separate the same "
        f"texts with an AUROC of 0.65 or more; of features drawn at random {_percent(one.neighbours.random)} do."
    )
    yield ""
    pairs = one.shared.pairs
    names: dict[str, int] = {}
    for pair in pairs:
        name = f"{pair.feature} {pair.label}".strip() if pair.feature >= 0 else "none"
        names[name] = names.get(name, 0) + 1
    often = ", ".join(f"{name} ({count}×)" for name, count in sorted(names.items(), key=lambda n: -n[1])[:4])
    yield (
        f"In common between two texts about it, {len(pairs)} pairs drawn with a seed: {often}. In "
        f"{sum(pair.worked for pair in pairs)} of {len(pairs)} ({_interval(one.shared.share)}) that feature fires on "
        "most of the other texts about it as well, and at most half as often on the rest."
    )
    yield ""


def _sample(prompt: str, plain: str, text: str, said: str) -> list[str]:
    def quoted(head: str, body: str) -> str:
        return f"{head}: " + (body or "(nothing)")

    parts = [quoted("prompt", prompt), quoted("without", plain), quoted(f"with ({said})", text)]
    fence = "```"
    while any(fence in part for part in parts):
        fence += "`"
    return [f"{fence}text", *parts, fence, ""]


def _answers(answers: Answers) -> tuple[str, ...]:
    return (
        "none" if answers.setting is None else str(answers.setting),
        f"{answers.share.value:.0%} ({_interval(answers.share)})",
        _percent(answers.loops),
        _number(answers.distance.perplexity),
        f"{answers.distance.kl:.2f}",
        *(_percent(found) for found in answers.also),
    )


def _record(one: Demonstrated) -> dict[str, Any]:
    return {
        "name": one.demonstration.name,
        "judgement": one.demonstration.judgement.says,
        "feature": one.choice.chosen.feature,
        "label": one.choice.chosen.label,
        "candidates": [[c.feature, c.label, c.auroc, c.degree] for c in one.choice.candidates],
        "setting": str(one.choice.setting),
        "worked": list(one.worked),
        "prompts": list(one.prompts),
        "answers": [
            {
                "setting": None if answers.setting is None else str(answers.setting),
                "texts": list(answers.texts),
                "holds": list(answers.holds),
                "loops": answers.loops.value,
                "perplexity": answers.distance.perplexity,
                "kl": answers.distance.kl,
            }
            for answers in (one.plain, *one.slider)
        ],
        "neighbours": [[n.feature, n.label, n.cosine, n.auroc] for n in one.neighbours.nearest],
        "neighbours_random": one.neighbours.random.value,
        "shared": [[s.first, s.second, s.feature, s.label, s.fires, s.fires_other] for s in one.shared.pairs],
    }


def _table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]


def _percent(found: Share) -> str:
    return f"{found.value:.0%}"


def _interval(found: Share) -> str:
    return f"{found.low:.0%}–{found.high:.0%}"


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:.2g}"
