"""The control plane's evidence: what was found out about a release, approvals, and what each stage still waits for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from proveout.access import keys
from proveout.domain import STAGES, Finding, Principal, Right
from proveout.edge.http.releases import find
from proveout.edge.http.requests import gateway, principal
from proveout.errors import InvalidInput
from proveout.releases import evidence
from proveout.releases.policy import GatedStage
from proveout.releases.refresh import DATA_TESTS
from proveout.store.pool import Row

router = APIRouter(prefix="/api/v1/apps/{app}/releases/{number}")
Caller = Annotated[Principal, Depends(principal)]
_DRILL = "drill"  # the kind of evidence
_EVALUATIONS = 20  # are looked at for one that is done


class Attestation(BaseModel):
    """What a person has found out about a release, outside of this server."""

    model_config = ConfigDict(extra="forbid")

    kind: str = Field(pattern=r"^[a-z][a-z0-9_-]{1,40}$")
    verdict: Finding
    statement: str = Field(min_length=10, max_length=4000)
    person: str = Field(min_length=1, max_length=200)  # who stands for it
    file: str | None = Field(default=None, max_length=1000)  # the name of a report
    file_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    expires: AwareDatetime


class Approval(BaseModel):
    """A word on a release for a stage."""

    model_config = ConfigDict(extra="forbid")

    stage: GatedStage
    verdict: Literal["pass", "fail"] = "pass"
    comment: str = Field(default="", max_length=4000)


@router.get("/evidence")
async def list_evidence(request: Request, caller: Caller, app: str, number: int) -> dict[str, Any]:
    """All evidence over the release's digest, newest first, each signed with the key of the workspace's log."""
    keys.require(caller, Right.RELEASES_READ)
    here, release = gateway(request), find(request, caller, app, number)
    async with here.store.within(caller.scope) as session:
        found = await evidence.of_release(session, here.log_keys, release)
    return {"release": release.label, "digest": release.digest, "evidence": [evidence.shown(e) for e in found]}


@router.post("/evidence", status_code=201)
async def attest(request: Request, caller: Caller, app: str, number: int, body: Attestation) -> dict[str, Any]:
    """Attests what a person found out about the release: a drill, UAT, an impact assessment, training, …

    What this server measures itself, and approvals, cannot be attested. `demanded_by`: the criteria of stages that ask
    for evidence of this kind.
    """
    keys.require(caller, Right.EVIDENCE_ATTEST)
    if body.kind in (evidence.EVALUATION, evidence.APPROVAL, evidence.REFRESH, DATA_TESTS):
        raise InvalidInput(f"kind: {body.kind} is not attested: `proveout eval run`, `proveout release approve`.")
    here, release = gateway(request), find(request, caller, app, number)
    facts = body.model_dump(exclude={"kind", "verdict", "expires"}, exclude_none=True)
    async with here.store.within(caller.scope) as session:
        found: evidence.Found = ("attested", body.verdict)
        made = await evidence.record(
            session, here.log_keys, release, body.kind, found, caller.key.id, facts, body.expires
        )
    criteria = [c for of_stage in here.routes.gate.policy.stages.values() for c in of_stage]
    return {**evidence.shown(made), "demanded_by": [c.id for c in criteria if c.evidence == body.kind]}


@router.post("/approvals", status_code=201)
async def approve(request: Request, caller: Caller, app: str, number: int, body: Approval) -> dict[str, Any]:
    """Approves the release for a stage, or refuses it. The word of its own author does not count, and is refused."""
    keys.require(caller, Right.RELEASES_APPROVE)
    here, release = gateway(request), find(request, caller, app, number)
    if caller.key.id in release.authors:
        raise InvalidInput(f"{release.label} was made with this key: somebody else must approve it.")
    facts = {"stage": body.stage, "comment": body.comment, "standard": evidence.standard(release.facts)}
    async with here.store.within(caller.scope) as session:
        found: evidence.Found = ("attested", body.verdict)
        made = await evidence.record(session, here.log_keys, release, evidence.APPROVAL, found, caller.key.id, facts)
    return evidence.shown(made)


@router.get("/readiness")
async def show_readiness(request: Request, caller: Caller, app: str, number: int) -> dict[str, Any]:
    """What each stage demands of the release, what it has, and what blocks it; with what is on record about it.

    `evaluation`: the figures of the newest one; `cost_per_answer` in USD, null where nobody knows it. `rolled_back`:
    whether the way back was ever walked in the stage; `drill`: what the newest one over this release says.
    """
    keys.require(caller, Right.RELEASES_READ)
    here, release = gateway(request), find(request, caller, app, number)
    stages: dict[str, Any] = {}
    async with here.store.within(caller.scope) as session:
        found = await evidence.of_release(session, here.log_keys, release)
        runs = await session.fetch("evaluations.list", app=app, release=number, limit=_EVALUATIONS)
        back = await session.fetch("rollouts.gone_back", workspace=release.workspace, app=app)
        walked = {row["stage"] for row in back}
        for stage in STAGES:
            checked = await here.routes.gate.check(session, release, stage)
            criteria = [
                {"id": c.id, "met": not lack, "missing": lack, "reason": c.reason, "source": c.source}
                for c, lack in checked
            ]
            ready = all(c["met"] for c in criteria)
            stages[stage] = {"ready": ready, "criteria": criteria, "rolled_back": stage in walked}
    drill = next((evidence.shown(e) for e in found if e.kind == _DRILL), None)
    return {
        "release": release.label,
        "digest": release.digest,
        "created": release.created,
        "facts": release.facts,
        "stages": stages,
        "evaluation": next((_figures(row) for row in runs if row["summary"]), None),
        "drill": drill and {name: drill[name] for name in ("verdict", "recorded", "expires")},
        "evidence": [evidence.shown(e) for e in found],
    }


def _figures(row: Row) -> dict[str, Any]:
    """An evaluation in short: its verdict, its scores with their 95 % intervals, what an answer cost."""
    summary = row["summary"]
    scores = {
        name: {key: score[key] for key in ("mean", "low", "high", "cases", "better")}
        for name, score in summary["scores"].items()
    }
    about = {key: row[key] for key in ("id", "golden", "created", "repeats")}
    told = {"verdict": summary["verdict"], "cases": summary["cases"], "scores": scores}
    return {**about, **told, "cost_per_answer": scores["cost"]["mean"] if "cost" in scores else None}
