"""Moves a release into a stage. `poc` is the one stage without a gate; the others demand evidence."""

from __future__ import annotations

from proveout.domain import Principal, Release, StageName
from proveout.errors import Conflict
from proveout.store.events import Kind, note
from proveout.store.pool import Store

UNGATED: StageName = "poc"


async def promote(store: Store, principal: Principal, release: Release, stage: StageName) -> None:
    """Makes `release` the stable one of `stage`. Raises Conflict where the gate is closed."""
    if stage != UNGATED:
        raise Conflict(
            f"{release.label} has no evidence for {stage}: this server opens only {UNGATED}, the stage without a gate."
        )
    async with store.unscoped() as session:
        await session.run(
            "routes.set_stable",
            workspace=release.workspace,
            app=release.app,
            stage=stage,
            number=release.number,
        )
        facts = {"app": release.app, "stage": stage, "stable": release.number, "digest": release.digest}
        await note(session, release.workspace, Kind.ROUTE_CHANGED, principal.key.id, facts)
