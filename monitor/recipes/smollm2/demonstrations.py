"""`python -m monitor.recipes.smollm2.demonstrations`: what single features of the pair `smollm2` do, as one page.

It carries out every demonstration on a model and its dictionary, and writes the page that the pair's README quotes.
"""

from pathlib import Path
from typing import Annotated

import typer

from monitor.lab.demonstrations.catalogue import ALL, demonstration
from monitor.lab.demonstrations.demonstration import Demonstration
from monitor.lab.demonstrations.report import as_json, page
from monitor.lab.demonstrations.study import Demonstrated, DemonstrationSizes, demonstrate
from monitor.lab.pair import Pair, open_pair

app = typer.Typer(add_completion=False)


@app.command()
def write(
    model: Annotated[str, typer.Option(help="The model: a GGUF file, a folder or a name on the hub.")],
    dictionary: Annotated[Path, typer.Option(help="The dictionary's folder.")],
    out: Annotated[
        Path, typer.Option(help="Write demonstrations.md and demonstrations.json to this folder.")
    ],
    only: Annotated[
        list[str] | None, typer.Option(help="Carry out this demonstration. Repeatable. Default: all.")
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Measure each on so many prompts.")] = 20,
    temperature: Annotated[float, typer.Option(min=0, help="Draw answers at this temperature.")] = 0.7,
    seed: Annotated[int, typer.Option(help="Draw everything random from this number.")] = 0,
    dtype: Annotated[str, typer.Option(help="Number type of the weights: float32 or bfloat16.")] = "auto",
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda or auto.")] = "auto",
) -> None:
    """Carries out the demonstrations; the page is written again after each, so a run that is stopped leaves one."""
    asked = [demonstration(name) for name in only] if only else list(ALL)
    pair = open_pair(model, dictionary, device=device, dtype=dtype)
    carry_out(pair, asked, DemonstrationSizes(prompts, temperature, seed), out)


def carry_out(
    pair: Pair, asked: list[Demonstration], sizes: DemonstrationSizes, out: Path
) -> list[Demonstrated]:
    """Every demonstration in turn, with the page of all that are done so far."""
    out.mkdir(parents=True, exist_ok=True)
    subject = sizes.subject(pair)
    found: list[Demonstrated] = []
    for one in asked:
        found.append(demonstrate(pair, one, sizes, typer.echo))
        (out / "demonstrations.md").write_text(page(found, subject), encoding="utf-8")
        (out / "demonstrations.json").write_text(as_json(found, subject), encoding="utf-8")
        done = found[-1]
        typer.echo(f"{one.name}: worked on {sum(done.worked)} of {len(done.worked)} prompts")
    return found


if __name__ == "__main__":
    app()
