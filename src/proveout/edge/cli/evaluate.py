"""`proveout eval`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from proveout import settings
from proveout.edge.cli import output
from proveout.edge.cli.client import connect
from proveout.edge.cli.releases import Named, split
from proveout.errors import InvalidInput

app = typer.Typer(no_args_is_help=True)


@app.callback()
def callback() -> None:
    """Ask a release its golden questions."""


@app.command()
def run(
    release: Named,
    dataset: Annotated[
        Path | None, typer.Option(help="JSON lines; default: the release's own golden questions.")
    ] = None,
    json: output.AsJson = False,
) -> None:
    """Ask a release its golden questions and score the answers."""
    name, number = split(release)
    body = {"dataset": _text(dataset)} if dataset else {}
    found = asyncio.run(_run(name, number, body))
    if json:
        output.document(found)
        return
    missed = [c for c in found["cases"] if any(score == 0 for score in c["scores"].values())]
    for case in missed:
        scores = ", ".join(s for s, v in case["scores"].items() if v == 0)
        output.say(f"{case['case']}: {scores}\n  asked    {case['question']}\n  answered {case['answer']}")
    rows = [
        {"score": name, "mean": "-" if s["mean"] is None else f"{s['mean']:.3f}", "cases": s["cases"]}
        for name, s in found["summary"]["scores"].items()
    ]
    output.table(rows, ("score", "mean", "cases"))
    output.say(f"answers that are quotes: {found['summary']['quoted']:.2f}")


def _text(dataset: Path) -> str:
    try:
        return dataset.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{dataset} cannot be read as UTF-8 text: {error}.") from error


async def _run(name: str, number: int, body: dict[str, str]) -> dict[str, Any]:
    told = settings.read()
    async with connect(told.url, told.key) as client:
        begun = await client.call("POST", f"/api/v1/apps/{name}/releases/{number}/evaluations", body)
        with output.progress_bar() as progress:
            await client.job(begun["job"], progress)
        return dict(await client.call("GET", f"/api/v1/evaluations/{begun['evaluation']}"))
