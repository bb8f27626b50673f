"""The gate of a stage: which of the evidence that a policy demands a release still lacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from proveout.domain import Evidence, Release, StageName
from proveout.errors import GateClosed
from proveout.ledger.integrate import LogKeys
from proveout.releases.evidence import APPROVAL, of_release
from proveout.releases.policy import Criterion, Policy
from proveout.store.pool import Session


@dataclass(frozen=True, slots=True)
class Gate:
    """Decides who enters a stage; asked by everything that changes a route."""

    policy: Policy
    keys: LogKeys

    async def check(self, session: Session, release: Release, stage: StageName) -> list[tuple[Criterion, str]]:
        """Each criterion of the stage with what it still lacks, "" where it is met. The session has a scope."""
        if stage == "poc":  # the one stage without a gate
            return []
        evidence = await of_release(session, self.keys, release)
        tenures: dict[str, set[str]] = {}
        for name in {c.stable_in for c in self.policy.stages[stage] if c.stable_in}:
            about = {"workspace": release.workspace, "app": release.app, "stage": name}
            rows = await session.fetch("tenures.of_stage", **about)
            tenures[name] = {row["digest"] for row in rows if not row["broke_glass"]}
        now = datetime.now(UTC)
        return [
            (criterion, lacks(criterion, release, stage, evidence, tenures.get(criterion.stable_in or "", ()), now))
            for criterion in self.policy.stages[stage]
        ]

    async def demand(self, session: Session, release: Release, stage: StageName) -> None:
        """Raises GateClosed with the list of what is missing, unless the release may enter the stage."""
        closed_to(release, stage, await self.check(session, release, stage))


def closed_to(release: Release, stage: StageName, checked: Sequence[tuple[Criterion, str]]) -> None:
    """Raises GateClosed with what is missing, where something is. `checked` is what `Gate.check` said."""
    missing = [
        {"id": criterion.id, "missing": lack, "reason": criterion.reason, "source": criterion.source}
        for criterion, lack in checked
        if lack
    ]
    if missing:
        said = "; ".join(f"{m['id']}: {m['missing']}" for m in missing)
        raise GateClosed(f"{release.label} may not enter {stage} yet: {said}", missing=missing)


def lacks(
    criterion: Criterion,
    release: Release,
    stage: StageName,
    evidence: Sequence[Evidence],
    stable: Iterable[str],
    now: datetime,
) -> str:
    """What a criterion still lacks, in words that say how to mend it; "" where it is met.

    `evidence` over the release's digest, newest first; `stable` the digests that were stable in the demanded stage.
    """
    if criterion.stable_in is not None:
        met = release.digest in stable
        return "" if met else f"it was never the stable release of {criterion.stable_in}: promote it there first"
    if criterion.pinned:
        return _lacks_pins(release)
    if criterion.approvals:
        return _lacks_approvals(criterion.approvals, release, stage, evidence, now)
    return _lacks_evidence(criterion, release, evidence, now)


def _lacks_pins(release: Release) -> str:
    loose = [use.name for use in release.manifest.knowledge if not use.snapshot]
    if not loose:
        return ""
    return f"it follows whatever {', '.join(loose)} holds: take `follow: true` out, and a new release pins it"


def _lacks_evidence(criterion: Criterion, release: Release, evidence: Sequence[Evidence], now: datetime) -> str:
    assert criterion.evidence is not None
    bases = (criterion.basis,) if criterion.basis else ("measured", "attested")
    newest = next((e for e in evidence if e.kind == criterion.evidence and e.basis in bases), None)
    how = _MENDED.get(criterion.evidence, "`proveout release attest {release} --kind {kind} …`")
    mend = how.format(release=release.label, kind=criterion.evidence)
    if newest is None:
        return f"no {criterion.basis or ''} {criterion.evidence} of this digest: {mend}".replace("  ", " ")
    if newest.verdict != "pass":
        return f"its newest {criterion.evidence}, {newest.id}, says {newest.verdict}: {mend}"
    if newest.expires is not None and newest.expires <= now:
        return f"its {criterion.evidence}, {newest.id}, held until {newest.expires:%Y-%m-%d}: {mend}"
    if criterion.max_age_days is not None and now - newest.recorded > timedelta(days=criterion.max_age_days):
        return f"its {criterion.evidence}, {newest.id}, is older than {criterion.max_age_days:g} days: {mend}"
    return ""


_MENDED = {"evaluation": "`proveout eval run {release}`"}


def _lacks_approvals(
    wanted: int, release: Release, stage: StageName, evidence: Sequence[Evidence], now: datetime
) -> str:
    """The newest word of each approver on this stage counts; the author's own never does."""
    said: dict[str, Evidence] = {}
    for word in evidence:
        if word.kind == APPROVAL and word.facts.get("stage") == stage and word.author != release.author:
            said.setdefault(word.author, word)
    against = [word for word in said.values() if word.verdict != "pass"]
    if against:
        return f"{against[0].author} has refused it ({against[0].id})"
    given = sum(word.expires is None or word.expires > now for word in said.values())
    if given >= wanted:
        return ""
    need = f"{wanted - given} more approval" + ("s" if wanted - given > 1 else "")
    return f"{need} by others than its author: `proveout release approve {release.label} --to {stage}`"
