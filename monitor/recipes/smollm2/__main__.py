"""`python -m monitor.recipes.smollm2`: makes the dictionary of the pair `smollm2`, step by step.

`answers` lets the model speak, `layers` asks what a linear probe finds at each layer, `sweep` compares layers, widths
and sparsities at two million tokens, `train` makes the dictionary, `measure` tells how good it is on each corpus. Each
goes on from what lies in its folder. `generations` lets the model speak on both sides of concepts, and `detection`
tells how well that is told apart.
"""

import enum
import json
import lzma
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from monitor.recipes.corpus import corpora
from monitor.recipes.smollm2.plan import (
    CONTEXT,
    HELD_OUT,
    PROBED,
    SHIPPED,
    SWEEP,
    SWEEP_HELD_OUT,
    SWEEP_TOKENS,
    TOKENS,
)


class QuestionSet(enum.StrEnum):
    """Which questions `generations` asks."""

    TEST = "test"
    EXAMPLES = "examples"


app = typer.Typer(add_completion=False, no_args_is_help=True)

Data = Annotated[
    Path,
    typer.Option(
        help="Read corpora and labelled sets from this folder, in corpus/ and labelled/.",
        exists=True,
        file_okay=False,
    ),
]
Model = Annotated[str, typer.Option(help="The model: a GGUF file, a folder or a name on the hub.")]


@app.callback()
def _steps() -> None:
    """Makes the dictionary of the pair `smollm2`: answers, layers, sweep, train, measure."""


@app.command("answers")
def answer(
    data: Data,
    model: Model,
    out: Annotated[
        Path, typer.Option(help="Write the answers to this file, as JSON lines; go on where it ends.")
    ],
    batch: Annotated[int, typer.Option(help="Generate so many answers together.", min=1)] = 128,
    longest: Annotated[int, typer.Option(help="Cut an answer after so many tokens.", min=1)] = 384,
) -> None:
    """Lets the model answer all questions, and writes what it says without the questions' words."""
    from monitor.model.load.model import load_model
    from monitor.recipes.smollm2.answers import Pace, SamplingPlan, answers
    from monitor.recipes.smollm2.questions import questions

    asked = questions(corpora(data))
    done = _answered(out)
    left = [question for question in asked if question.digest not in done]
    typer.echo(f"{len(asked):,} questions, {len(left):,} of them to be answered")
    loaded = load_model(model, device="cpu", dtype="bfloat16")
    pace = Pace(typer.echo)
    plan = SamplingPlan(batch=batch, longest=longest)
    with out.open("a", encoding="utf-8") as file:
        for number, found in enumerate(answers(loaded, left, plan, pace.add), 1):
            row = {
                "source": found.question.source,
                "number": found.question.number,
                "asked": found.question.digest,
                "kind": found.question.kind,
                "finished": found.finished,
                "text": found.text,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            pace.done = number / len(left)
    typer.echo(f"{pace.tokens:,} tokens in {out}")


Answers = Annotated[
    Path, typer.Option(help="The model's own answers, as JSON lines, also .xz.", exists=True, dir_okay=False)
]
Out = Annotated[Path, typer.Option(help="Work in this folder, outside the repository.")]
Compile = Annotated[bool, typer.Option(help="Compile the model's layers first, with g++: it reads faster.")]


@app.command("benign")
def benign(
    answers: Annotated[
        Path,
        typer.Option(help="The model's own answers, as JSON lines, also .xz.", exists=True, dir_okay=False),
    ],
    out: Annotated[Path, typer.Option(help="Write the texts into this folder, such as policies/benign.")],
) -> None:
    """Writes what the model says to the questions that were written here, as benign texts for policies."""
    from monitor.recipes.smollm2.benign import write_benign

    typer.echo(str(write_benign(read_answers(answers), out)))


@app.command("generations")
def speak_on_both_sides(
    model: Model,
    out: Annotated[Path, typer.Option(help="Write what is said into this folder; go on from it.")],
    draws: Annotated[int, typer.Option(help="Ask each question so often on each side at most.", min=1)] = 10,
    batch: Annotated[int, typer.Option(help="Generate so many answers together.", min=1)] = 128,
    longest: Annotated[int, typer.Option(help="Cut an answer after so many tokens.", min=1)] = 40,
    temperature: Annotated[float, typer.Option(help="Draw answers at this temperature.")] = 0.7,
    seed: Annotated[int, typer.Option(help="Draw from this number.")] = 0,
    dtype: Annotated[str, typer.Option(help="Number type of the weights: float32 or bfloat16.")] = "bfloat16",
    only: Annotated[
        list[str] | None, typer.Option(help="Only the contrast of this policy. Repeatable. Default: all.")
    ] = None,
    questions: Annotated[
        QuestionSet,
        typer.Option(help="Ask the questions by which policies are tested, or those that `examples` needs."),
    ] = QuestionSet.TEST,
) -> None:
    """Lets the model answer on both sides of concepts, and keeps the answers that do as a side's criterion says."""
    from monitor.model.load.model import load_model
    from monitor.recipes.smollm2.answers import Pace, SamplingPlan
    from monitor.recipes.smollm2.generations import speech
    from monitor.recipes.smollm2.generations.catalogue import CONTRASTS
    from monitor.recipes.smollm2.generations.example_questions import FOR_EXAMPLES

    loaded = load_model(model, device="cpu", dtype=dtype)
    pace = Pace(typer.echo)
    plan = SamplingPlan(temperature, longest=longest, batch=batch, seed=seed)
    typer.echo(speech.KEPT_HEAD)
    tests = questions is QuestionSet.TEST
    for one in CONTRASTS if tests else FOR_EXAMPLES:
        if only and one.name not in only:
            continue
        said = speech.speech_of(
            out / speech.SAID / f"{one.name}.json", partial(speech.speak, loaded, one, draws, plan, pace.add)
        )
        speech.write_rows(one, said, out)
        typer.echo(speech.kept_row(one, said))
        if one.look_alikes:
            plainly = partial(speech.unprompted, loaded, one, speech.PLAIN_DRAWS, plan, pace.add)
            plain = speech.speech_of(out / speech.SAID / "requests.json", plainly)
            typer.echo(speech.answered_row(one, plain))
    if tests:
        calmly = partial(speech.everyday, loaded, plan, pace.add)
        calm = speech.speech_of(out / speech.SAID / "everyday.json", calmly)
        speech.write_benign(calm, out)
    typer.echo(f"{pace.tokens:,} tokens in {out}")


Generations = Annotated[
    Path, typer.Option(help="What `generations` wrote: the test.", exists=True, file_okay=False)
]
Said = Annotated[
    Path,
    typer.Option(
        help="What `generations --questions examples` wrote: the further examples.",
        exists=True,
        file_okay=False,
    ),
]
Policies = Annotated[Path, typer.Option(help="Folder of policies.", exists=True, file_okay=False)]
PairName = Annotated[str | None, typer.Option(help="A pair by its name.")]
OtherModel = Annotated[str | None, typer.Option(help="Model, in place of a pair.")]
Dictionary = Annotated[Path | None, typer.Option(help="Its dictionary.")]
Labelled = Annotated[
    Path | None, typer.Option(help="Labelled files that teach as well, as `policy fit --extra` reads.")
]
Manifest = Annotated[Path | None, typer.Option(help="What the files of --data are.")]
Seed = Annotated[int, typer.Option(help="Draws folds and resamples.")]
Dtype = Annotated[str, typer.Option(help="Number type of the weights: float32 or bfloat16.")]
Record = Annotated[Path | None, typer.Option(help="Write all numbers here as JSON.")]
Most = Annotated[
    int, typer.Option(help="Take so many answers of each side of a question at most.", min=1, max=3)
]
POOLINGS = "`max`, `mean:MIN_TOKENS`, `top_k_mean:K` or `ema:HALF_LIFE`"


@app.command("detection")
def detect_own_speech(
    generations: Generations,
    policies: Policies = Path("policies"),
    pair: PairName = None,
    model: OtherModel = None,
    dictionary: Dictionary = None,
    data: Labelled = None,
    manifest: Manifest = None,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    out: Record = None,
) -> None:
    """Tells how well the shipped locks and other detectors tell the model's own answers apart, and prints tables."""
    from monitor.lab.data_folder import open_data
    from monitor.lab.pair import open_pair
    from monitor.recipes.smollm2.generations.detection import (
        SpeechMeter,
        as_record,
        fitted_table,
        shipped_table,
    )

    opened = open_pair(model, dictionary, dtype=dtype, pair=pair)
    extra = open_data(data, manifest=manifest) if data is not None else None
    found = []
    for one in SpeechMeter(opened, policies, generations, extra, seed).run():
        typer.echo(f"{one.file}: measured", err=True)
        found.append(one)
    typer.echo(f"{shipped_table(found)}\n\n{fitted_table(found)}")
    if out is not None:
        out.write_text(as_record(found), "utf-8")


@app.command("extension")
def try_extension(
    said: Said,
    generations: Generations,
    policies: Policies = Path("policies"),
    pair: PairName = None,
    model: OtherModel = None,
    dictionary: Dictionary = None,
    data: Labelled = None,
    manifest: Manifest = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this policy. Repeatable. Default: all.")
    ] = None,
    most: Most = 3,
    pooling: Annotated[
        str | None, typer.Option(help=f"Pool by this in place of the rules' own pooling: {POOLINGS}.")
    ] = None,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    out: Record = None,
) -> None:
    """Tells whether policies detect better with the model's own answers among their examples, and prints a table."""
    from monitor.lab.data_folder import open_data
    from monitor.lab.pair import open_pair
    from monitor.recipes.smollm2.generations.detection import SpeechMeter
    from monitor.recipes.smollm2.generations.extension import (
        ExtensionMeter,
        as_record,
        extension_table,
        written_pooling,
    )

    opened = open_pair(model, dictionary, dtype=dtype, pair=pair)
    extra = open_data(data, manifest=manifest) if data is not None else None
    meter = ExtensionMeter(SpeechMeter(opened, policies, generations, extra, seed), said, seed, most)
    found = []
    for one in meter.run(only or (), written_pooling(pooling) if pooling else None):
        typer.echo(f"{one.policy}, {one.texts}: measured", err=True)
        found.append(one)
    typer.echo(extension_table(found))
    if out is not None:
        out.write_text(as_record(found), "utf-8")


@app.command("poolings")
def compare_poolings(
    said: Said,
    generations: Generations,
    data: Annotated[
        Path, typer.Option(help="Labelled files, of which one half teaches.", exists=True, file_okay=False)
    ],
    manifest: Manifest = None,
    benign: Annotated[
        list[Path] | None, typer.Option(help="Further benign texts, as `policy fit --benign`. Repeatable.")
    ] = None,
    pooling: Annotated[list[str] | None, typer.Option(help=f"{POOLINGS}. Repeatable.")] = None,
    policies: Policies = Path("policies"),
    pair: PairName = None,
    model: OtherModel = None,
    dictionary: Dictionary = None,
    seed: Seed = 0,
    dtype: Dtype = "auto",
) -> None:
    """Tells how many dangerous requests are found at low rates of false positives, by pooling, and prints a table."""
    from monitor.lab.benign_texts import benign_texts
    from monitor.lab.data_folder import open_data
    from monitor.lab.pair import open_pair
    from monitor.recipes.smollm2.generations.detection import SpeechMeter
    from monitor.recipes.smollm2.generations.poolings import compared, poolings_table

    opened = open_pair(model, dictionary, dtype=dtype, pair=pair)
    folder = open_data(data, manifest=manifest)
    meter = SpeechMeter(opened, policies, generations, folder, seed)
    calm = benign_texts(policies, benign or ()).calibrating
    found = []
    for one in compared(meter, said, folder, calm, pooling or ("ema:12", "top_k_mean:8"), seed):
        typer.echo(f"{one.pooling}, {one.source}: measured", err=True)
        found.append(one)
    typer.echo(poolings_table(found))


@app.command("examples")
def write_examples(
    said: Said,
    only: Annotated[list[str], typer.Option(help="Extend the examples of this policy. Repeatable.")],
    most: Most = 3,
    policies: Policies = Path("policies"),
) -> None:
    """Puts the model's own answers behind the examples of policies, in place of those of before."""
    from monitor.recipes.smollm2.generations.examples import extend

    for name in only:
        typer.echo(
            f"{name}: {extend(policies, said, name, most)} examples of what the model said or was asked"
        )


@app.command("layers")
def probe(
    data: Data,
    model: Model,
    rows: Annotated[int, typer.Option(help="Read so many rows of each labelled set.", min=20)] = 300,
) -> None:
    """Tells how well a linear probe at each layer tells the labelled concepts apart, and prints a table."""
    from monitor.model.load.model import load_model
    from monitor.recipes.smollm2.concepts import as_table, auroc_by_layer, labelled_sets

    loaded = load_model(model, device="cpu")
    typer.echo(as_table(auroc_by_layer(loaded, PROBED, labelled_sets(data, rows))))


@app.command("sweep")
def compare(
    data: Data,
    model: Model,
    answers: Answers,
    out: Out,
    tokens: Annotated[
        int, typer.Option(help="Train each dictionary on so many tokens.", min=1)
    ] = SWEEP_TOKENS,
    compile: Compile = True,
) -> None:
    """Trains a dictionary for each layer, width and sparsity that is compared; finished ones are kept."""
    from monitor.recipes.smollm2.sweep import SweepText, sweep

    sources = _texts(data, answers, out / "texts")
    sweep(SweepText(model, sources, tokens, SWEEP_HELD_OUT, compile), SWEEP, out, typer.echo)


@app.command("train")
def learn(
    data: Data,
    model: Model,
    answers: Answers,
    out: Out,
    tokens: Annotated[int, typer.Option(help="Train on so many tokens.", min=1)] = TOKENS,
    held_out: Annotated[int, typer.Option(help="Measure on so many tokens.", min=1)] = HELD_OUT,
    compile: Compile = True,
) -> None:
    """Trains the dictionary; the same command goes on from the checkpoint of a run that was stopped."""
    from monitor.dictionary.training.progress import RunLines
    from monitor.dictionary.training.settings import TrainSettings
    from monitor.lab.training import TrainingText, open_subject, storage_of, train_into, verify_trained

    sources = _texts(data, answers, out / "texts")
    settings = TrainSettings(features=SHIPPED.features, tokens=tokens, k=SHIPPED.k)
    subject = open_subject(
        TrainingText(model, SHIPPED.layer, sources, CONTEXT, held_out, "auto", compile=compile)
    )
    progress = RunLines(settings, subject.measured, typer.echo)
    folder = out / "dictionary"
    train_into(storage_of(folder, weights="bfloat16"), settings, subject, progress, plot=True)
    if not (test := verify_trained(folder, subject)).passed:
        typer.echo(test.explained())
    typer.echo(f"saved in {folder}")


@app.command("measure")
def measure(
    data: Data,
    model: Model,
    dictionary: Annotated[Path, typer.Option(help="The dictionary's folder.", exists=True, file_okay=False)],
    tokens: Annotated[int, typer.Option(help="Measure on so many tokens of each corpus.", min=1)] = 20_000,
    dtype: Dtype = "auto",
) -> None:
    """Measures the dictionary on the held-out documents of each corpus, and prints a table."""
    from monitor.recipes.smollm2.quality import as_table, quality_by_corpus, write_quality

    found = {}
    for name, row in quality_by_corpus(model, dictionary, corpora(data), tokens=tokens, dtype=dtype):
        typer.echo(f"{name}: measured", err=True)
        found[name] = row
    write_quality(found, dictionary)
    typer.echo(as_table(found))


def _texts(data: Path, answers: Path, folder: Path) -> tuple[str, ...]:
    from monitor.recipes.smollm2.questions import questions
    from monitor.recipes.smollm2.texts import write_texts

    found = corpora(data)
    return tuple(write_texts(found, read_answers(answers), questions(found), folder))


def read_answers(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of answers."""
    text = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    return [json.loads(line) for line in text.splitlines()]


def _answered(path: Path) -> set[str]:
    if not path.exists():
        return set()
    return {json.loads(line)["asked"] for line in path.read_text("utf-8").splitlines()}


if __name__ == "__main__":
    app()
