"""`proveout check` and `proveout release`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from proveout.edge.cli import output
from proveout.edge.cli.client import ask, connected
from proveout.errors import InvalidInput
from proveout.evals.cases import read_cases
from proveout.releases.bundle import read_folder
from proveout.releases.derive import NEWEST
from proveout.releases.manifest import read_app
from proveout.retrieval.reader import Reader
from proveout.retrieval.readers import front_matter

app = typer.Typer(no_args_is_help=True)
Folder = Annotated[Path, typer.Argument(metavar="APP_DIR", help="A folder with an app.yaml.")]
Named = Annotated[str, typer.Argument(metavar="APP@N")]


def check(folder: Folder, json: output.AsJson = False) -> None:
    """Check an app folder: its manifest, prompts, golden questions and every document. Needs no server."""
    read = read_app(read_folder(folder))
    cases = read_cases(read.golden, read.declared.evals.golden or "golden")
    names = {document for files in read.sources.values() for document in files}
    unknown = [
        f"{read.declared.evals.golden}: {case.id}: the document {document!r} is in no knowledge"
        for case in cases
        for document in case.documents
        if document not in names
    ]
    labels = read.judge.labels if read.judge else []
    strays = {label.case for label in labels if label.case} - {case.id for case in cases}
    unknown += [f"a label names the case {case!r}: no golden question has this id" for case in sorted(strays)]
    problems = unknown + asyncio.run(_unreadable(read.sources))
    if json:
        output.document(
            {
                "app": read.declared.app,
                "documents": len(names),
                "questions": len(cases),
                "labels": len(labels),
                "problems": problems,
            }
        )
    else:
        for problem in problems:
            output.warn(problem)
        labelled = f", {len(labels)} labels of answers" if read.judge else ""
        counted = f"{len(names)} documents, {len(cases)} golden questions{labelled}"
        output.say(f"{read.declared.app}: {counted}, {len(problems)} problems")
    if problems:
        raise typer.Exit(1)


async def _unreadable(sources: Any) -> list[str]:
    problems, reader = [], Reader()
    try:
        with output.progress_bar() as progress:
            documents = [(name, data) for files in sources.values() for name, data in files.items()]
            for done, (name, data) in enumerate(documents, start=1):
                try:
                    parsed, _ = await reader.read(name, data)
                    front_matter(name, parsed.metadata, ())
                except InvalidInput as error:
                    problems.append(error.message)
                progress(done, len(documents), "reading documents")
    finally:
        reader.close()
    return problems


@app.command()
def create(folder: Folder, json: output.AsJson = False) -> None:
    """Make a release of an app folder. The same content gives the same release again."""

    async def run() -> dict[str, Any]:
        async with connected() as client:
            with output.progress_bar() as progress:
                return await client.create_release(folder, progress)

    made = asyncio.run(run())
    if json:
        output.document(made)
        return
    for problem in made["problems"]:
        output.warn(f"left out of knowledge {problem['knowledge']}: {problem['message']}")
    new = "; what it is measured by is the folder's now"
    known = "" if made["created"] else f" (it existed already{new if made['updated'] else ''})"
    output.say(f"{made['app']}@{made['number']} {made['digest']}{known}")


@app.command("list")
def list_(name: Annotated[str, typer.Argument(metavar="APP")], json: output.AsJson = False) -> None:
    """List the releases of an app, newest first."""
    found = ask("GET", f"/api/v1/apps/{name}/releases")
    if json:
        output.document(found)
    else:
        for one in found["releases"]:
            one["derived"] = one["derived"] and f"from {one['derived']['from']}"
        output.table(found["releases"], ("number", "digest", "created", "stages", "derived", "follows"))


@app.command()
def show(release: Named, json: output.AsJson = False) -> None:
    """Show one release: its resolved manifest and its facts."""
    name, number = split(release)
    found = ask("GET", f"/api/v1/apps/{name}/releases/{number}")
    if json:
        output.document(found)
        return
    manifest = found["manifest"]
    output.say(f"{release} {found['digest']}")
    output.say(f"created   {found['created']}   stages {', '.join(found['stages']) or '-'}")
    output.say(f"purpose   {found['facts']['purpose']}")
    if found["derived"]:
        changes = ", ".join(f"{key} {value}" for key, value in found["derived"]["changes"].items())
        output.say(f"derived   from {name}@{found['derived']['from']}: {changes}")
    if found["follows"]:
        output.say(f"follows   {', '.join(found['follows'])}")
    for choice in manifest["model"]:
        output.say(f"model     {choice['use']['name']} {choice['use']['digest']}{_conditions(choice['when'])}")
    output.say(f"parameters {manifest['parameters']}")
    for knowledge in manifest["knowledge"]:
        snapshot = knowledge["snapshot"] or "follows the newest snapshot"
        output.say(f"knowledge {knowledge['name']} {snapshot} ({knowledge['mode']}, top {knowledge['top_k']})")
    output.say(f"otherwise {manifest['otherwise']}")


@app.command()
def derive(
    release: Named,
    latest: Annotated[
        bool, typer.Option("--latest", help="The newest snapshots of knowledge, and the models as they are now.")
    ] = False,
    knowledge: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=SNAPSHOT]", help="A snapshot by its digest, or the newest one; repeatable."),
    ] = None,
    model: Annotated[str, typer.Option(help="Another model.")] = "",
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="COMPONENT", help="Switch off: fallback, grounding, knowledge.NAME; repeatable."),
    ] = None,
    json: output.AsJson = False,
) -> None:
    """Make a release that differs from another in what is named and in nothing else."""
    name, number = split(release)
    snapshots = {base: snapshot or NEWEST for base, _, snapshot in (one.partition("=") for one in knowledge or ())}
    body = {"latest": latest, "knowledge": snapshots, "model": model, "without": without or []}
    made = ask("POST", f"/api/v1/apps/{name}/releases/{number}/derivations", body)
    known = "" if made["created"] else " (it existed already)"
    output.document(made) if json else output.say(f"{name}@{made['number']} {made['digest']}{known}")


@app.command()
def refreshes(name: Annotated[str, typer.Argument(metavar="APP")], json: output.AsJson = False) -> None:
    """List the newer snapshots that stages of an app were offered because they follow them, and what came of it."""
    found = ask("GET", f"/api/v1/apps/{name}/refreshes")
    if json:
        output.document(found)
        return
    output.table(found["refreshes"], ("stage", "stable", "release", "knowledge", "snapshot", "state", "started"))
    for refresh in found["refreshes"]:
        for reason in refresh["reasons"]:
            output.say(f"{refresh['stage']} {refresh['knowledge']} {refresh['snapshot'][:19]}: {reason}")


@app.command("diff")
def diff_(before: Named, after: Named, json: output.AsJson = False) -> None:
    """Show what changed from one release to another: settings, prompts, documents and facts."""
    (name, number), (other_name, other) = split(before), split(after)
    if other_name != name:
        raise InvalidInput(f"{before} and {after} are releases of two apps: give two of the same.")
    found = ask("GET", f"/api/v1/apps/{name}/releases/{number}/diff/{other}")
    if json:
        output.document(found)
        return
    output.say(f"{before} {found['before']['digest']}\n{after} {found['after']['digest']}")
    for line in _told(found):
        output.say(line)


def _told(found: dict[str, Any]) -> Iterator[str]:
    """A diff in lines for a person."""
    if not any(found[part] for part in ("changes", "prompts", "knowledge", "facts")):
        yield "no difference"
    for change in found["changes"]:
        yield f"{change['key']}: {_shown(change['before'])} → {_shown(change['after'])}"
    yield from found["prompts"].values()
    for corpus in found["knowledge"]:
        yield f"knowledge {corpus['name']}: {_shown(corpus['before'])} → {_shown(corpus['after'])}"
        for mark, part in (("+", "added"), ("-", "removed"), ("~", "changed")):
            yield from (f"  {mark} {document}" for document in corpus[part])
        if corpus["unseen"]:
            yield f"  {corpus['unseen']} documents are hidden from your key"
    for change in found["facts"]:
        yield f"fact {change['key']}: {_shown(change['before'])} → {_shown(change['after'])}"


def _shown(value: object) -> str:
    return "-" if value is None else str(value)


def _conditions(when: dict[str, Any] | None) -> str:
    given = {key: value for key, value in (when or {}).items() if value}
    return f" when {given}" if given else ""


Stage = Annotated[str, typer.Option("--to", help="The stage: poc, beta or production.")]


@app.command()
def promote(
    release: Named,
    to: Stage,
    break_glass: Annotated[
        str, typer.Option(metavar="REASON", help="Go in without the evidence. It is recorded, and alarms.")
    ] = "",
    json: output.AsJson = False,
) -> None:
    """Make a release the stable one of a stage. Refused, with what is missing, where the stage's gate is closed."""
    name, number = split(release)
    body = {"release": number, "stage": to, "break_glass": break_glass}
    done = ask("POST", f"/api/v1/apps/{name}/promotions", body)
    output.document(done) if json else output.say(f"{release} is the stable release of {to}")


@app.command()
def approve(
    release: Named,
    to: Stage,
    refuse: Annotated[bool, typer.Option("--refuse", help="Refuse it instead.")] = False,
    comment: Annotated[str, typer.Option(help="What there is to say about it.")] = "",
    json: output.AsJson = False,
) -> None:
    """Approve a release for a stage, or refuse it. Its own author cannot."""
    name, number = split(release)
    body = {"stage": to, "verdict": "fail" if refuse else "pass", "comment": comment}
    made = ask("POST", f"/api/v1/apps/{name}/releases/{number}/approvals", body)
    said = "refused" if refuse else "approved"
    output.document(made) if json else output.say(f"{release} is {said} for {to}: {made['id']}")


@app.command()
def readiness(release: Named, json: output.AsJson = False) -> None:
    """Show what each stage demands of a release, what it has, and what blocks it. Exit code 1: something does."""
    name, number = split(release)
    found = ask("GET", f"/api/v1/apps/{name}/releases/{number}/readiness")
    if json:
        output.document(found)
    else:
        output.say(f"{release} {found['digest']}")
        for key in ("purpose", "owners", "risk", "objectives", "risks", "targets"):
            if found["facts"].get(key):
                output.say(f"{key:10} {found['facts'][key]}")
        for stage, state in found["stages"].items():
            output.say(f"{stage}: {'ready' if state['ready'] else 'blocked'}")
            for criterion in state["criteria"]:
                mark = "met    " if criterion["met"] else "missing"
                output.say(f"  {mark} {criterion['id']}: {criterion['missing'] or criterion['reason']}")
            if stage != "poc":
                output.say(f"  the way back was {'walked here' if state['rolled_back'] else 'never walked here'}")
        drill = found["drill"]
        output.say(f"drill: {drill['verdict']}, {drill['recorded'][:10]}" if drill else "drill: none is on record")
        _say_figures(found["evaluation"])
        output.table(found["evidence"], ("id", "kind", "basis", "verdict", "author", "recorded", "expires"))
    raise typer.Exit(0 if all(state["ready"] for state in found["stages"].values()) else 1)


def _say_figures(evaluation: dict[str, Any] | None) -> None:
    """The newest evaluation, for a person."""
    if evaluation is None:
        output.say("evaluation: none yet")
        return
    others = "" if evaluation["golden"] else ", over other questions than its own"
    made = evaluation["created"][:10]
    output.say(f"evaluation: {evaluation['verdict']}, {evaluation['cases']} cases, {made}{others} ({evaluation['id']})")
    output.scores(evaluation["scores"])
    cost = evaluation["cost_per_answer"]
    output.say("cost per answer: nobody knows it" if cost is None else f"cost per answer: {cost:.6f} USD")


@app.command()
def attest(
    release: Named,
    kind: Annotated[str, typer.Option(help="What was done: drill, uat, red-team, impact_assessment, training, …")],
    statement: Annotated[str, typer.Option(help="What was found out.")],
    person: Annotated[str, typer.Option(help="Who stands for it.")],
    expires: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Until when it counts.")],
    file: Annotated[Path | None, typer.Option(help="A report: its name and SHA-256 go on record.")] = None,
    verdict: Annotated[str, typer.Option(help="pass, fail or inconclusive.")] = "pass",
    json: output.AsJson = False,
) -> None:
    """Attest what a person found out about a release outside of this server."""
    name, number = split(release)
    body = {"kind": kind, "verdict": verdict, "statement": statement, "person": person}
    body["expires"] = expires.replace(tzinfo=UTC).isoformat()
    if file is not None:
        try:
            body |= {"file": file.name, "file_sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        except OSError as error:
            raise InvalidInput(f"{file} cannot be read: {error.strerror}.") from error
    made = ask("POST", f"/api/v1/apps/{name}/releases/{number}/evidence", body)
    output.document(made) if json else output.say(f"{made['id']}: {kind} of {release}: {verdict}")
    if not made["demanded_by"]:
        output.warn(f"It is on record, and opens no gate: no stage of this server demands evidence of the kind {kind}.")


def split(release: str) -> tuple[str, int]:
    """`helpdesk@3` in its parts. Raises InvalidInput."""
    name, _, number = release.partition("@")
    if not name or not number.isdigit():
        raise InvalidInput(f"{release!r} does not name a release: write APP@N, for example helpdesk@1.")
    return name, int(number)
