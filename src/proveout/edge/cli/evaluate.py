"""`proveout eval`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from proveout.edge.cli import output
from proveout.edge.cli.client import Client, ask, connected
from proveout.edge.cli.releases import Named, split
from proveout.errors import InvalidInput, ProveoutError
from proveout.evals import leakage
from proveout.evals.cases import Case, read_cases, write_cases
from proveout.evals.imports import Form, import_cases

app = typer.Typer(no_args_is_help=True)
EXITS = {"pass": 0, "fail": 1, "inconclusive": 3}
_NOTHING: Mapping[Source, str] = {
    "documents": "The release's model asked no question that its document answers: a larger model does.",
    "feedback": "Nobody corrected an answer, or was not helped by one, whose content is still kept.",
    "traffic": "No user's request of one question has content that is still kept.",
}
_GAPS = 5  # are shown at least
Source = Literal["documents", "feedback", "traffic"]
Baseline = Annotated[str | None, typer.Option(metavar="APP@M", help="Compare with a release, or with a model.")]


@app.callback()
def callback() -> None:
    """Ask a release questions, score the answers, compare, and say what that proves."""


@app.command()
def run(
    release: Named,
    dataset: Annotated[
        str | None,
        typer.Option(help="A file of JSON lines, or NAME[@VERSION]; default: the golden ones."),
    ] = None,
    baseline: Baseline = None,
    repeats: Annotated[int | None, typer.Option(min=1, max=50, help="How often to ask each question.")] = None,
    budget: Annotated[float | None, typer.Option(min=0.0001, metavar="USD", help="Stop asking at this cost.")] = None,
    bias: Annotated[
        bool, typer.Option("--bias", help="Ask about other people too: names, genders, ages, nationalities.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the report there: HTML, Markdown, JUnit XML, JSON.")
    ] = None,
    json: output.AsJson = False,
) -> None:
    """Ask a release its golden questions and score the answers.

    Exit code 0: the app's targets are met, and it is as good as the baseline; 1: not so; 3: too few cases to say.
    Answers that are known already are not asked again.
    """
    name, number = split(release)
    of_file = dataset is not None and (
        Path(dataset).is_file() or "/" in dataset or dataset.endswith((".jsonl", ".json"))
    )
    text, cases = _cases(Path(dataset)) if dataset and of_file else (None, [])
    body = {
        "dataset": text,
        "named": None if of_file else dataset,
        "baseline": baseline,
        "repeats": repeats,
        "budget_usd": budget,
        "bias": bias or None,
    }
    if report:
        _can_hold(report, report)
    body = {key: value for key, value in body.items() if value is not None}
    found = asyncio.run(_run(name, number, body, sum(case.counts for case in cases)))
    if json:
        output.document(found)
    else:
        _say(found)
    if report:
        try:
            asyncio.run(_write(found["id"], report))
        except ProveoutError as error:  # what was found is told already
            output.warn(error.message)
            raise typer.Exit(2) from error
    raise typer.Exit(EXITS[found["summary"]["verdict"]])


@app.command()
def plan(
    release: Named,
    effect: Annotated[float, typer.Option(min=0.001, max=1, help="The drop to be seen, in points.")] = 0.05,
    cases: Annotated[int | None, typer.Option(min=1, help="How many cases; default: the golden ones.")] = None,
    json: output.AsJson = False,
) -> None:
    """Say, before anything runs, how many cases and repeats show a change of a size, and what that takes."""
    name, number = split(release)
    query = f"?effect={effect}" + (f"&cases={cases}" if cases else "")
    found = ask("GET", f"/api/v1/apps/{name}/releases/{number}/evaluations/plan{query}")
    if json:
        output.document(found)
        return
    points = f"a drop of {100 * effect:g} points"
    if found["repeats"] is None:
        output.say(
            f"{found['cases']} cases are too few to see {points}, however often they are asked. The cheapest below:"
        )
    else:
        output.say(f"{found['cases']} cases, each asked {_times(found['repeats'])}, show {points}.")
    tokens = found["prompt_tokens"] + found["completion_tokens"]
    output.say(
        f"With a baseline that is {found['answers']} answers, about {_lasting(found['seconds'])}, {tokens} tokens and "
        + (f"{found['usd']:.4f} USD." if found["priced"] else "a cost that nobody knows: its model has no price.")
    )
    bias = found["bias"]
    if bias["questions"]:
        output.say(
            f"--bias asks {bias['questions']} questions more, {bias['answers']} answers: about "
            f"{_lasting(bias['seconds'])} and {bias['usd']:.4f} USD."
        )
    else:
        output.say("--bias would ask nothing: no question names a person whom another could stand in for.")
    if judge := found["judge"]:
        cost = f"about {judge['usd']:.4f} USD" if judge["usd"] else "at no cost that is known yet"
        output.say(f"The judge is asked up to {judge['calls']} times, {cost}; what it said before is not asked again.")
    output.table(found["options"], ("repeats", "cases", "answers"))
    noise = "measured" if found["measured"] else "assumed, for no run had repeats yet"
    output.say("noise between repeats: " + (noise if found["noise"] else "none"))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _lasting(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"


@app.command()
def datasets(
    name: Annotated[str, typer.Argument(metavar="APP")],
    put: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep this file as the next version.")] = None,
    dataset: Annotated[str, typer.Option("--name", help="The data set's name; default: the file's.")] = "",
    json: output.AsJson = False,
) -> None:
    """List the data sets of an app, or keep the next version of one. Every mistake is named with its line."""
    if put:
        known = dataset or put.stem.lower()
        found = ask("PUT", f"/api/v1/apps/{name}/datasets/{known}", {"text": _cases(put)[0]})
        said = f"{found['name']}@{found['version']}: {found['cases']} cases, {found['counted']} of them count"
        output.document(found) if json else output.say(said)
        return
    found = ask("GET", f"/api/v1/apps/{name}/datasets")
    if json:
        output.document(found)
    else:
        output.table(found["datasets"], ("name", "version", "cases", "counted", "digest", "created"))


@app.command("list")
def list_(name: Annotated[str, typer.Argument(metavar="APP")], json: output.AsJson = False) -> None:
    """List the evaluations of an app, newest first, and what judges made of users' answers."""
    found = ask("GET", f"/api/v1/apps/{name}/evaluations")
    if json:
        output.document(found)
        return
    rows = [{**e, "verdict": e["summary"]["verdict"] if e["summary"] else e["state"]} for e in found["evaluations"]]
    output.table(rows, ("id", "release", "baseline", "verdict", "repeats", "created"))
    for failed in rows:
        if failed["error"]:
            output.say(f"{failed['id']} failed: {failed['error']}")
    if found["judged"]:
        output.say("users' answers that were judged as they came")
        judged = [{**row, "mean": _rounded(row["mean"]), "spread": _rounded(row["spread"])} for row in found["judged"]]
        output.table(judged, ("release", "drawn", "judged", "mean", "spread", "usd", "newest"))


@app.command()
def report(
    evaluation: Annotated[str, typer.Argument(metavar="EVALUATION")],
    to: Annotated[Path, typer.Option(metavar="DIR", help="Where the files go.")] = Path(),
    json: output.AsJson = False,
) -> None:
    """Write the report of an evaluation: one HTML file with its plots, Markdown, JUnit XML and JSON."""
    _can_hold(to, to)
    written = [str(path) for path in asyncio.run(_write(evaluation, to))]
    if json:
        output.document({"evaluation": evaluation, "files": written})
        return
    for path in written:
        output.say(path)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines, or one JSON list.")],
    form: Annotated[Form, typer.Option("--from", help="Whose data set it is.")],
    to: Annotated[Path, typer.Option(metavar="OUT.jsonl")],
    reviewed: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who has reviewed it: only then it counts.")
    ] = None,
    json: output.AsJson = False,
) -> None:
    """Turn a data set of another tool into cases. Every record that is not understood is named. Needs no server."""
    _is_free(to)
    made = import_cases(_text(file), str(file), form, reviewed)
    archived = f"{made.archived} archived items were left out." if made.archived else ""
    if not made.cases:
        raise InvalidInput(f"{file}: there is no case in it. {archived}".rstrip())
    _keep(to, write_cases(made.cases))
    _say_kept({"to": str(to), "cases": len(made.cases), "reviewed": reviewed, "archived": made.archived}, json)
    if archived:
        output.warn(archived)


@app.command()
def leaks(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A data set, JSON lines.")],
    against: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Training data, say; each line is a text. Default: its own other splits."),
    ] = None,
    json: output.AsJson = False,
) -> None:
    """Find questions that stand, nearly word for word, elsewhere. Exit code 1: there are some. Needs no server."""
    cases = _cases(file)[1]
    texts = {f"{path}:{at}": text for path in against or () for at, text in _lines(_text(path))}
    found = leakage.leaks(cases, texts) if against else leakage.leaks_between_splits(cases)
    if json:
        output.document({"cases": len(cases), "leaks": msgspec.to_builtins(found)})
    else:
        for leak in found:
            output.say(f"{leak.case}: {leak.share:.0%} of its question stands in {leak.where}")
        output.say(f"{len(found)} of {len(cases)} questions leak")
    if found:
        raise typer.Exit(1)


@app.command()
def draft(
    release: Named,
    source: Annotated[Source, typer.Option("--from", help="Where the questions come from.")],
    to: Annotated[Path, typer.Option(metavar="OUT.jsonl")],
    count: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 20,
    budget: Annotated[
        float | None, typer.Option(min=0.0001, metavar="USD", help="Of documents: stop asking at this cost.")
    ] = None,
    json: output.AsJson = False,
) -> None:
    """Draft questions from documents, feedback or traffic, for a person to review: none counts before.

    From documents, the release's model asks them. Exit code 1: there was nothing to draft from.
    """
    name, number = split(release)
    _is_free(to)
    body = {"source": source, "count": count} | ({"budget_usd": budget} if budget else {})
    text, why = asyncio.run(_draft(f"/api/v1/apps/{name}/releases/{number}/drafts", body))
    if not text:
        why = why or _NOTHING[source]
        output.warn(why)
        if json:
            output.document({"to": None, "cases": 0, "reviewed": None, "reason": why})
        raise typer.Exit(1)
    _keep(to, text)
    _say_kept({"to": str(to), "cases": len(text.splitlines()), "reviewed": None}, json)


async def _draft(path: str, body: Mapping[str, Any]) -> tuple[str, str]:
    """Drafts as JSON lines, and what the model failed with, if it did."""
    async with connected() as client:
        if body["source"] != "documents":
            return b"".join([line async for line in client.lines(path, body)]).decode(), ""
        begun = await client.call("POST", path, body)
        with output.progress_bar() as progress:
            made = await client.job(begun["job"], progress)
        output.warn(f"{made['documents']} documents were asked about, {made['spent_usd']:.4f} USD")
        return (await client.content(f"/api/v1/drafts/{made['drafts']}")).decode(), made["failed"]


def _is_free(to: Path) -> None:
    """Raises InvalidInput where no new file can be made at `to`: said before anything is asked."""
    if to.exists():
        raise InvalidInput(f"{to} exists already: name another file.")
    if not to.parent.is_dir():
        raise InvalidInput(f"{to} cannot be written: there is no folder {to.parent}: make it first.")
    _can_hold(to.parent, to)


def _can_hold(folder: Path, what: Path) -> None:
    """Raises InvalidInput where `folder`, or the nearest above it that is there, takes no new file."""
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise InvalidInput(f"{what} cannot be written: {nearest} is a file: name a folder.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InvalidInput(f"{what} cannot be written: you have no right to write to {nearest}.")


def _keep(to: Path, text: str) -> None:
    """Writes cases that nobody wrote by hand, and never over others."""
    try:
        with to.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise InvalidInput(f"{to} exists already: name another file.") from error
    except OSError as error:
        raise InvalidInput(f"{to} cannot be written: {error}.") from error


def _say_kept(made: Mapping[str, Any], json: bool) -> None:
    if json:
        output.document(made)
        return
    by = made["reviewed"]
    counts = f"reviewed by {by}" if by else "each counts once its field `reviewed` names who has reviewed it"
    output.say(f"{made['to']}: {made['cases']} cases, {counts}.")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line with its number; of JSON, the strings in it."""
    for at, line in enumerate(text.split("\n"), start=1):
        try:
            yield at, " ".join(_strings(msgspec.json.decode(line)))
        except msgspec.DecodeError:
            yield at, line


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _cases(dataset: Path) -> tuple[str, list[Case]]:
    """The text of a data set and its cases. Raises InvalidInput with the file and the line of every mistake."""
    text = _text(dataset)
    cases = read_cases(text, str(dataset))
    if not cases:
        raise InvalidInput(f"{dataset}: there is no case in it.")
    return text, cases


def _text(dataset: Path) -> str:
    try:
        return dataset.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{dataset} cannot be read as UTF-8 text: {error}.") from error


async def _run(name: str, number: int, body: dict[str, Any], cases: int) -> dict[str, Any]:
    async with connected() as client:
        begun = await client.call("POST", f"/api/v1/apps/{name}/releases/{number}/evaluations", body)
        output.warn(await _estimate(client, name, number, body, cases, begun["evaluation"]))
        with output.progress_bar() as progress:
            await client.job(begun["job"], progress)
        return dict(await client.call("GET", f"/api/v1/evaluations/{begun['evaluation']}"))


async def _estimate(
    client: Client, name: str, number: int, body: Mapping[str, Any], cases: int, evaluation: str
) -> str:
    """How many questions a run asks (`cases` of a file), and what that takes, as the app's last run had it."""
    if "named" in body:
        known, _, version = body["named"].partition("@")
        at = f"?version={version}" if version else ""
        cases = (await client.call("GET", f"/api/v1/apps/{name}/datasets/{known}{at}"))["counted"]
    some = f"?cases={cases}" if cases else ""
    planned = await client.call("GET", f"/api/v1/apps/{name}/releases/{number}/evaluations/plan{some}")
    repeats = (await client.call("GET", f"/api/v1/evaluations/{evaluation}"))["repeats"]
    answers = planned["cases"] * repeats * (2 if "baseline" in body else 1)
    part = answers / planned["answers"]
    usd = (
        f", {part * planned['usd']:.2f} USD" if planned["usd"] else "" if planned["priced"] else ", at an unknown cost"
    )
    lasting = _lasting(part * planned["seconds"])
    beside = " beside those of --bias" if "bias" in body else ""
    told = f"{planned['cases']} questions, {answers} answers{beside}, about {lasting}{usd}"
    return f"{told}; what is known is not asked again"


async def _write(evaluation: str, folder: Path) -> list[Path]:
    """The report's files, written."""
    written = []
    async with connected() as client:
        for kind, ending in {"html": "html", "markdown": "md", "junit": "xml", "json": "json"}.items():
            content = await client.content(f"/api/v1/evaluations/{evaluation}/report?format={kind}")
            written.append((folder / f"{evaluation}.{ending}", content))
    return await asyncio.to_thread(_put, folder, written)


def _put(folder: Path, files: list[tuple[Path, bytes]]) -> list[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in files:
            path.write_bytes(content)
    except OSError as error:
        raise InvalidInput(f"{folder} cannot be written: {error}.") from error
    return [path for path, _ in files]


def _say(found: Mapping[str, Any]) -> None:
    """An evaluation, for a person."""
    summary = found["summary"]
    for case in found["cases"]:
        if missed := case["missed"]:
            expected = f"\n  expected {said}" if (said := case.get("expected")) else ""
            output.say(f"{case['case']}: {', '.join(missed)}\n  asked    {case['question']}{expected}")
            output.say(f"  answered {case['answer']}")
    output.scores(summary["scores"])
    output.say(f"answers that are quotes: {summary['quoted']:.2f}")
    output.say(f"{summary['answers']} answers, {summary['asked']} of them asked now, {summary['spent_usd']:.4f} USD")
    if not summary["whole"]:
        output.say("The budget ended it before every question was asked.")
    for target in summary["targets"]:
        output.say(f"target {target['name']}: {target['verdict']}: {target['reason']}")
    if summary["comparison"]:
        _say_comparison(summary, found["changed"])
    if summary["judge"]:
        for line in summary["judge"]["said"]:
            output.say(line)
    for note in summary["notes"]:
        output.say(note)
    if summary["bias"]:
        _say_bias(summary["bias"])
    output.say(f"verdict: {summary['verdict']} ({found['id']})")
    if found["golden"] and not summary["failing"] and summary["evidence"] != summary["verdict"]:
        output.say(f"as evidence for a stage: {summary['evidence']}: its targets decide, and harm that is shown")


def _say_comparison(summary: Mapping[str, Any], changed: Sequence[Mapping[str, Any]]) -> None:
    rows = []
    for compared in summary["comparison"]["metrics"]:
        overall = compared["overall"]
        rows.append(
            {
                "compared": compared["metric"]["name"],
                summary["baseline"]: f"{overall['baseline']:.3f}",
                "now": f"{overall['candidate']:.3f}",
                "difference": f"{overall['difference']:+.3f}",
                "95 %": output.interval(overall["low"], overall["high"]),
                "verdict": overall["verdict"],
                "finds harm from": _rounded(overall["detectable"]),
            }
        )
    output.table(rows, [*rows[0]] if rows else [])
    for compared in summary["comparison"]["metrics"]:
        if compared["overall"]["verdict"] != "pass":
            output.say(f"{compared['metric']['name']}: {compared['overall']['reason']}")
    worst = summary["comparison"]["worst_slice"]
    if worst:
        output.say(
            f"worst slice: {worst['tag']} ({worst['metric']} {worst['difference']:+.3f} over {worst['n']} cases)"
        )
    for change in changed[:5]:
        output.say(
            f"changed by {change['change']:.2f}: {change['case']}\n  - {change['before']}\n  + {change['after']}"
        )


def _say_bias(gaps: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        {
            "the same question about": f"{gap['group']}, {gap['other']} ({gap['attribute']})",
            "correct, first minus second": f"{gap['difference']['estimate']:+.3f}",
            "95 %": output.interval(gap["difference"]["low"], gap["difference"]["high"]),
            "p": f"{gap['p_adjusted']:.3f}",
            "": "alarm" if gap["alarm"] else "",
        }
        for at, gap in enumerate(gaps)
        if gap["alarm"] or at < _GAPS
    ]
    output.table(rows, [*rows[0]])


def _rounded(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
