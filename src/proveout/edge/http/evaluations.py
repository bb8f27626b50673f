"""The control plane's evaluations: questions asked of a release, scored, compared, and reported."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from proveout.access import keys
from proveout.domain import Principal, Release, Right
from proveout.edge.http.datasets import read_dataset
from proveout.edge.http.releases import find, releases_of
from proveout.edge.http.requests import gateway, principal
from proveout.edge.wiring import EVALUATE
from proveout.errors import Conflict, InvalidInput, NotFound
from proveout.evals import report
from proveout.evals.bias import variants
from proveout.evals.cases import read_cases
from proveout.evals.plan import Effort, judging, plan
from proveout.evals.runner import (
    CONCURRENT,
    RANDOM_REPEATS,
    check_groups,
    foreign_groups,
    is_direct,
    is_random,
    models_behind,
    models_of,
)
from proveout.jobs.runtime import Jobs
from proveout.releases.findings import changes_of, report_of, scored_cases
from proveout.releases.own_tests import own_tests
from proveout.serving.resolve import find_release
from proveout.store.pool import Row
from proveout.store.sealing import seal, unseal

router = APIRouter(prefix="/api/v1")
Caller = Annotated[Principal, Depends(principal)]
NAMED = r"^[a-z0-9][a-z0-9._-]{0,62}(@[1-9][0-9]{0,8})?$"
_FORMATS = {
    "html": ("text/html", report.as_html),
    "markdown": ("text/markdown", report.as_markdown),
    "junit": ("application/xml", report.as_junit),
    "json": ("application/json", report.as_json),
}
_STYLED_ALONE = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"  # the file carries its style


class NewEvaluation(BaseModel):
    """What to ask a release, how often, and what to compare it with."""

    model_config = ConfigDict(extra="forbid")

    dataset: str | None = None  # JSON lines; left out: the release's own golden questions
    named: str | None = Field(default=None, pattern=NAMED)  # or a data set of the app: NAME, NAME@VERSION
    baseline: str | None = None  # a release (APP@N) or a model, asked the same questions
    repeats: int | None = Field(default=None, ge=1, le=50)
    budget_usd: float | None = Field(default=None, gt=0)
    bias: bool = False  # ask about other people too: names, genders, ages, nationalities


@router.post("/apps/{app}/releases/{number}/evaluations", status_code=202)
async def create_evaluation(
    request: Request, caller: Caller, app: str, number: int, body: NewEvaluation
) -> dict[str, str]:
    """Asks a release its golden questions, or those of `dataset` (JSON lines), as a job.

    Over its own questions the result becomes evidence. `repeats` defaults to 1, or 3 where the model samples.
    """
    keys.require(caller, Right.EVALUATIONS_RUN)
    here, release = gateway(request), find(request, caller, app, number)
    dataset = await _questions(request, caller, release, body)
    cases = read_cases(dataset, "dataset")
    if not cases and body.dataset is not None:
        raise InvalidInput("dataset: there is no case in it.")
    if not cases:
        raise InvalidInput(f"{release.label} came without golden questions: set evals.golden, or give a data set.")
    if not any(case.counts for case in cases):
        raise InvalidInput(
            "No case counts yet: nobody wrote these by hand. Let somebody review them, and say in `reviewed` who did."
        )
    check_groups(cases, caller)
    if body.baseline is not None and is_direct(body.baseline):
        here.rooms.catalogue.resolve(body.baseline)
    elif body.baseline is not None:
        find_release(here.directory(), caller, body.baseline)
    if body.budget_usd is not None:
        _priced(request, caller, release, body.baseline)
    evaluation = f"evaluation_{secrets.token_hex(8)}"
    async with here.store.within(caller.scope) as session:
        key = await here.keyring.workspace(session, release.workspace)
        await session.run(
            "evaluations.insert",
            id=evaluation,
            workspace=release.workspace,
            app=app,
            release=number,
            key=caller.key.id,
            dataset=seal(key, dataset.encode(), "dataset"),
            repeats=body.repeats or (RANDOM_REPEATS if is_random(release) else 1),
            baseline=body.baseline,
            budget_usd=body.budget_usd,
            golden=body.dataset is None and body.named is None,
            bias=body.bias,
        )
    job = await here.jobs.enqueue(EVALUATE, release.workspace, evaluation, job=evaluation, queue="measuring")
    return {"evaluation": evaluation, "job": job}


@router.get("/apps/{app}/releases/{number}/evaluations/plan")
async def plan_evaluation(
    request: Request,
    caller: Caller,
    app: str,
    number: int,
    effect: Annotated[float, Query(gt=0, le=1)] = 0.05,
    cases: Annotated[int | None, Query(ge=1)] = None,
) -> dict[str, Any]:
    """How many cases and repeats show a drop of `effect` in the share of correct answers, and what asking them takes.

    `cases` defaults to the release's golden questions; what noise and effort are is taken from the app's last run.
    """
    keys.require(caller, Right.EVALUATIONS_RUN)
    here, release = gateway(request), find(request, caller, app, number)
    past: list[list[float]] = []
    price = here.rooms.catalogue.price(models_of(release.manifest)[0])
    effort = Effort.guess(price)
    async with here.store.within(caller.scope) as session:
        golden = (await own_tests(session, here.keyring, release)).cases
        runs = await session.fetch("evaluations.list", app=app, release=None, limit=20)
        done = [row for row in runs if row["summary"]]
        if done:
            effort = Effort(**done[0]["summary"]["effort"], measured=True)
        repeated = next((row["id"] for row in done if row["repeats"] > 1), None)
        if repeated:
            scored = await scored_cases(session, here.keyring, release.workspace, repeated)
            past = [case["every_score"]["correct"] for case in scored if "correct" in case["every_score"]]
    if not is_random(release):
        past = past or [[1.0, 1.0]] * 2  # the same question gets the same answer: no noise between repeats
    made = plan(
        effect,
        cases or len(golden) or None,
        past=past,
        effort=effort,
        concurrent=CONCURRENT,
        biased=len(variants(golden)),
    )
    told: Any = release.facts.get("judge")
    known = [judge for row in done if (judge := row["summary"].get("judge")) and judge["asked"]]
    usd = known[0]["usd"] / known[0]["asked"] if known else 0.0
    judge = judging(made, told["labels"], told["repeats"], usd) if told else None
    return {**msgspec.to_builtins(made), "judge": msgspec.to_builtins(judge)}


@router.get("/apps/{app}/evaluations")
async def list_evaluations(
    request: Request, caller: Caller, app: str, limit: Annotated[int, Query(ge=1, le=1000)] = 50
) -> dict[str, Any]:
    """The evaluations of an app, newest first: `state` (waiting, running, done, failed), the summaries of those that
    are done, and the `error` of those that failed.

    `judged`: by release, what its judge made of a sample of users' answers, as they came.
    """
    keys.require(caller, Right.EVALUATIONS_RUN)
    here = gateway(request)
    releases_of(request, caller, app)
    async with here.store.within(caller.scope) as session:
        rows = await session.fetch("evaluations.list", app=app, release=None, limit=limit)
        judged = await session.fetch("judgements.of_app", app=app, release=None)
    return {
        "evaluations": await with_states(here.jobs, caller.key.workspace, rows),
        "judged": [dict(row) for row in judged],
    }


@router.get("/evaluations/{evaluation}")
async def show_evaluation(request: Request, caller: Caller, evaluation: str) -> dict[str, Any]:
    """How an evaluation stands (`state`, and the `error` of one that failed), its summary, every scored answer, and
    those that `changed` most against the baseline's."""
    keys.require(caller, Right.EVALUATIONS_RUN)
    row, cases = await _evaluation(request, caller, evaluation)
    shown = ("id", "app", "release", "baseline", "golden", "repeats", "summary", "created")
    about = {key: row[key] for key in shown}
    (stands,) = await with_states(gateway(request).jobs, caller.key.workspace, [about])
    return {**stands, "cases": msgspec.to_builtins(cases), "changed": msgspec.to_builtins(changes_of(cases))}


@router.get("/evaluations/{evaluation}/report")
async def show_report(
    request: Request, caller: Caller, evaluation: str, format: Literal["html", "markdown", "junit", "json"] = "html"
) -> Response:
    """The report of an evaluation: one HTML file with its plots, Markdown, JUnit XML, or JSON."""
    keys.require(caller, Right.EVALUATIONS_RUN)
    row, cases = await _evaluation(request, caller, evaluation)
    if row["summary"] is None:
        (stands,) = await with_states(gateway(request).jobs, caller.key.workspace, [row])
        raise Conflict(f"{evaluation} has no report: it is {stands['state']}. {stands['error'] or ''}".rstrip())
    made = report_of(find(request, caller, row["app"], row["release"]), row, cases)
    kind, write = _FORMATS[format]
    return Response(write(made), media_type=kind, headers={"content-security-policy": _STYLED_ALONE})


def _priced(request: Request, caller: Principal, release: Release, baseline: str | None) -> None:
    """Raises InvalidInput where a model has no price: no budget could be kept."""
    here, judge = gateway(request), release.facts.get("judge")
    models = [*models_of(release.manifest), *([judge["model"]] if judge else [])]  # type: ignore[index]
    models += models_behind(here.directory(), caller, baseline) if baseline is not None else []
    for model in models:
        if here.rooms.catalogue.price(model) is None:
            raise InvalidInput(
                f"budget_usd: {model} has no price in the server's config, so nobody knows what its answers cost: "
                "give it `prices`, or leave the budget out."
            )


async def with_states(jobs: Jobs, workspace: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Evaluations, each with its `state`, and `error` where it failed. An evaluation's job has its id."""

    async def stands(row: Row) -> tuple[str, str | None]:
        if row["summary"] is not None:
            return "done", None
        try:
            found = await jobs.state(workspace, row["id"])
        except NotFound:
            return "failed", "Its job is not known any more: start it again, what was answered is not asked again."
        return found.state, found.error["message"] if found.error else None

    found = await asyncio.gather(*map(stands, rows))
    return [{**row, "state": state, "error": error} for row, (state, error) in zip(rows, found, strict=True)]


async def _evaluation(request: Request, caller: Principal, evaluation: str) -> tuple[Row, list[dict[str, Any]]]:
    """An evaluation and what was asked, answered and scored in it. Raises NotFound, also for one whose questions were
    asked in groups that the caller could not ask them in."""
    here = gateway(request)
    async with here.store.within(caller.scope) as session:
        row = await session.row("evaluations.get", evaluation=evaluation)
        if row is None or not caller.reaches(row["app"]):
            raise NotFound(f"There is no evaluation {evaluation}.")
        key = await here.keyring.workspace(session, caller.key.workspace)
        cases = read_cases(unseal(key, row["dataset"], "dataset").decode(), "dataset")
        if row["key"] != caller.key.id and foreign_groups(cases, caller):
            raise NotFound(f"There is no evaluation {evaluation} that you could have run: its groups are not yours.")
        return row, await scored_cases(session, here.keyring, caller.key.workspace, evaluation)


async def _questions(request: Request, caller: Principal, release: Release, body: NewEvaluation) -> str:
    """What is to be asked, as JSON lines."""
    if body.dataset is not None and body.named is not None:
        raise InvalidInput("dataset, named: give one of the two.")
    if body.dataset is not None:
        return body.dataset
    here = gateway(request)
    async with here.store.within(caller.scope) as session:
        if body.named is None:
            return (await own_tests(session, here.keyring, release)).golden
        name, _, version = body.named.partition("@")
        number = int(version) if version else None
        return (await read_dataset(session, here.keyring, caller, release.app, name, number))[1]
