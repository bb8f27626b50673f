"""The gate of a stage: which of the evidence that a policy demands a release still lacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from proveout.domain import Evidence, Manifest, Release, StageName
from proveout.errors import GateClosed
from proveout.ledger.integrate import LogKeys
from proveout.releases.evidence import APPROVAL, EVALUATION, REFRESH, changed_since, of_release
from proveout.releases.policy import Criterion, Policy
from proveout.store.configuration import release_of
from proveout.store.pool import Session


@dataclass(frozen=True, slots=True)
class Gate:
    """Decides who enters a stage; asked by everything that changes a route."""

    policy: Policy
    keys: LogKeys

    async def check(self, session: Session, release: Release, stage: StageName) -> list[tuple[Criterion, str]]:
        """Each criterion of the stage with what it still lacks, "" where it is met. The session has a scope.

        A refresh that meets the refresh criteria is admitted by them alone; these are returned instead of the stage's.
        """
        if stage == "poc":  # the one stage without a gate
            return []
        evidence = await of_release(session, self.keys, release)
        checked = await self._checked(session, release, stage, self.policy.stages[stage], evidence)
        if any(lack for _, lack in checked):
            refresh = await self.check_refresh(session, release, stage)
            if refresh and not any(lack for _, lack in refresh):
                return refresh
        return checked

    async def check_refresh(self, session: Session, release: Release, stage: StageName) -> list[tuple[Criterion, str]]:
        """As `check`, by the refresh criteria. Empty if the release is not a refresh of the stage's stable release.

        Evidence of a comparison counts only if the stable release was its baseline.
        """
        stable = await self.stable_that_follows(session, release.workspace, release.app, stage)
        if stable is None or not refreshes(release.manifest, stable.manifest, stable.follows):
            return []
        evidence = await of_release(session, self.keys, release)
        fitting = [e for e in evidence if e.facts.get("baseline", stable.digest) == stable.digest]
        return await self._checked(session, release, stage, self.policy.refresh.criteria, fitting)

    async def stable_that_follows(self, session: Session, workspace: str, app: str, stage: StageName) -> Release | None:
        """The stable release of a stage, if newer snapshots of its knowledge may be offered to that stage.

        It follows knowledge and came through the gate, and its targets, golden questions, scorers and judge have not
        changed since it came.
        """
        row = await session.row("routes.followed", workspace=workspace, app=app, stage=stage)
        if row is None:
            return None
        stable = release_of(row)
        found = await of_release(session, self.keys, stable)
        newest = next((e for e in found if e.basis == "measured" and e.kind in (EVALUATION, REFRESH)), None)
        return None if newest is not None and changed_since(newest, stable) else stable

    async def _checked(
        self,
        session: Session,
        release: Release,
        stage: StageName,
        criteria: Sequence[Criterion],
        evidence: Sequence[Evidence],
    ) -> list[tuple[Criterion, str]]:
        tenures: dict[str, set[str]] = {}
        for name in {c.stable_in for c in criteria if c.stable_in}:
            about = {"workspace": release.workspace, "app": release.app, "stage": name}
            rows = await session.fetch("tenures.of_stage", **about)
            tenures[name] = {row["digest"] for row in rows if not row["broke_glass"]}
        now = datetime.now(UTC)
        return [
            (criterion, lacks(criterion, release, stage, evidence, tenures.get(criterion.stable_in or "", ()), now))
            for criterion in criteria
        ]

    async def demand(self, session: Session, release: Release, stage: StageName) -> None:
        """Raises GateClosed with the list of what is missing, unless the release may enter the stage."""
        closed_to(release, stage, await self.check(session, release, stage))


def refreshes(release: Manifest, stable: Manifest, follows: Set[str]) -> bool:
    """Whether a release differs from the stable one in snapshots of knowledge that it follows, and in nothing else."""

    def without_snapshots(manifest: Manifest) -> Manifest:
        uses = tuple(replace(use, snapshot="") if use.name in follows else use for use in manifest.knowledge)
        return replace(manifest, knowledge=uses)

    pinned = all(use.snapshot for use in release.knowledge)
    return pinned and release != stable and without_snapshots(release) == without_snapshots(stable)


def closed_to(release: Release, stage: StageName, checked: Sequence[tuple[Criterion, str]]) -> None:
    """Raises GateClosed with what is missing, if anything is. `checked` is what `Gate.check` said."""
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
    return (
        f"it follows whatever {', '.join(loose)} holds: `proveout release derive {release.label} --latest` pins "
        f"it, and its stages follow by the gate of refreshes"
    )


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
    if newest.kind == EVALUATION and (changed := changed_since(newest, release)):
        return f"its newest evaluation, {newest.id}, was by other {changed}: {mend}"
    if newest.expires is not None and newest.expires <= now:
        return f"its {criterion.evidence}, {newest.id}, held until {newest.expires:%Y-%m-%d}: {mend}"
    if criterion.max_age_days is not None and now - newest.recorded > timedelta(days=criterion.max_age_days):
        return f"its {criterion.evidence}, {newest.id}, is older than {criterion.max_age_days:g} days: {mend}"
    return ""


_MENDED = {"evaluation": "`proveout eval run {release}`"}


def _lacks_approvals(
    wanted: int, release: Release, stage: StageName, evidence: Sequence[Evidence], now: datetime
) -> str:
    """How many approvals of this stage are missing, in words; "" if none.

    Each approver's newest approval or refusal counts, the author's own never. An approval counts until it expires or
    the release's targets, golden questions, scorers or judge change; a refusal counts whatever changes.
    """
    said: dict[str, Evidence] = {}
    for word in evidence:
        if word.kind == APPROVAL and word.facts.get("stage") == stage and word.author not in release.authors:
            said.setdefault(word.author, word)
    against = [word for word in said.values() if word.verdict != "pass"]
    if against:
        return f"{against[0].author} has refused it ({against[0].id})"
    valid = [word for word in said.values() if word.expires is None or word.expires > now]
    seen = [(word, changed_since(word, release)) for word in valid]
    given = sum(not changed for _, changed in seen)
    if given >= wanted:
        return ""
    need = f"{wanted - given} more approval" + ("s" if wanted - given > 1 else "") + " by others than its author"
    stale = [f"{word.id} saw other {changed}" for word, changed in seen if changed]
    why = f" ({'; '.join(stale)})" if stale else ""
    return f"{need}{why}: `proveout release approve {release.label} --to {stage}`"
