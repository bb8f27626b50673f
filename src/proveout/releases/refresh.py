"""Stages that follow knowledge: a newer snapshot is tested, asked about, and let in by a gate of its own.

A refresh is a row and the job of the same id. A worker's loop makes the row where a stage may get a newer snapshot, and
sees that its job is under way; the job ends it, with route, evidence and event, in one transaction.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from proveout.domain import EVERYONE, Directory, Finding, Release, Scope, StageName
from proveout.engine.catalogue import Catalogue
from proveout.errors import NotFound, StorageFull, Unavailable, UpstreamFailed
from proveout.evals.cases import Case
from proveout.jobs.runtime import Jobs, Result, Steps
from proveout.ledger.integrate import LogKeys
from proveout.releases import evidence
from proveout.releases.derive import Wanted, derive
from proveout.releases.gate import Gate
from proveout.releases.measure import Evaluate
from proveout.releases.plan import plan_of
from proveout.releases.policy import Bound, Figure, RefreshPolicy
from proveout.releases.rollouts import Rollouts
from proveout.store.events import Kind, note
from proveout.store.pool import Row, Session, Store, as_json

RefreshState = Literal["running", "passed", "failed", "inconclusive", "put_off"]
REFRESH = evidence.REFRESH  # the job's name too
DATA_TESTS = "data-tests"
QUESTIONS = 120
_SYSTEM = "system"
_PAUSE_SECONDS = 600.0  # until what was put off is tried again
_TRIES = 6  # of a snapshot that a stage cannot be asked about, until a person is told
_OFFERED = ("workspace", "app", "stage", "knowledge", "snapshot")
_ENDS: Mapping[Finding, RefreshState] = {"pass": "passed", "fail": "failed", "inconclusive": "inconclusive"}
_PASSING = {error.code for error in (Unavailable, StorageFull, UpstreamFailed)}  # says nothing of the snapshot


class Snapshot(msgspec.Struct, frozen=True):
    """What data tests look at: how many documents it was made of, how many could not be read, and of each that still
    exists, by name, (digest, chunks, readers)."""

    documents: int
    unread: int
    members: Mapping[str, tuple[str, int, tuple[str, ...]]]


def figures(before: Snapshot, after: Snapshot) -> dict[Figure, float]:
    """Shares of documents, from 0 to 1.

    `lost`: of the documents before, those that are gone. `unread`, `empty` (without text), `duplicates` (the content of
    another one): by how much their share grew. `widened`: of the documents in both, those that more people may read.
    """
    both = before.members.keys() & after.members.keys()
    wider = [name for name in both if _widened(before.members[name][2], after.members[name][2])]
    return {
        "lost": _share(before.documents - len(both), before.documents),
        "unread": max(0.0, _unread(after) - _unread(before)),
        "empty": max(0.0, _empty(after) - _empty(before)),
        "duplicates": max(0.0, _duplicates(after) - _duplicates(before)),
        "widened": _share(len(wider), len(both)),
    }


def run_data_tests(found: Mapping[Figure, float], bounds: Sequence[Bound]) -> list[dict[str, Any]]:
    """Each test with its figure, its bound and its verdict."""
    return [
        {
            "id": bound.id,
            "figure": bound.figure,
            "value": round(found[bound.figure], 6),
            "most": bound.most,
            "verdict": "pass" if found[bound.figure] <= bound.most else "fail",
        }
        for bound in bounds
    ]


def draw(cases: Sequence[Case], most: int = QUESTIONS) -> list[Case]:
    """A stratified sample of `most` cases: of each kind (tags, answerable or not) its share, and at least one while
    there is room. Drawn by a hash of the ids, so the same each time."""
    kinds: dict[tuple[object, ...], list[Case]] = defaultdict(list)
    for case in sorted(cases, key=_place):
        kinds[(case.unanswerable, *sorted(case.tags))].append(case)
    ranked = [(rank / len(kind), _place(case), case) for kind in kinds.values() for rank, case in enumerate(kind)]
    return [case for *_, case in sorted(ranked, key=lambda one: one[:2])[:most]]


@dataclass(frozen=True, slots=True)
class Refreshes:
    """Offers newer snapshots to the stages whose stable release follows them."""

    store: Store
    jobs: Jobs
    directory: Callable[[], Directory]
    gate: Gate

    async def tick(self, scope: Scope) -> None:
        """Offers each stage of the scope's workspace one new snapshot at a time; a decided one never again."""
        async with self.store.within(scope) as session:
            running = await session.fetch("refreshes.running", workspace=scope.workspace)
        for row in running:
            await self._look_after(scope, row)
        directory, busy = self.directory(), {(row["app"], row["stage"]) for row in running}
        for (workspace, app, stage), route in directory.routes.items():
            release = directory.releases[workspace, app, route.stable]
            if workspace != scope.workspace or stage == "poc" or not release.follows or (app, stage) in busy:
                continue
            offered = await self._offer(scope, release, stage)
            if offered is not None:
                await self._start(workspace, offered["id"])

    async def _start(self, workspace: str, refresh: str) -> None:
        await self.jobs.enqueue(REFRESH, workspace, refresh, job=refresh, queue="measuring")

    async def _look_after(self, scope: Scope, row: Row) -> None:
        """Starts the job of a refresh whose worker died before it could, and ends a refresh whose job failed."""
        try:
            state = await self.jobs.state(scope.workspace, row["id"])
        except NotFound:
            await self._start(scope.workspace, row["id"])
            return
        if state.error is not None:
            async with self.store.within(scope) as session:
                tried = await session.fetch("refreshes.put_off", **{name: row[name] for name in _OFFERED})
                again = state.error["code"] in _PASSING and len(tried) < _TRIES
                await end(session, row, "put_off" if again else "inconclusive", [state.error["message"]])

    async def _offer(self, scope: Scope, release: Release, stage: StageName) -> Row | None:
        where = {"workspace": release.workspace, "app": release.app, "stage": stage}
        async with self.store.within(scope) as session:
            mine = await session.row("routes.try_lock", **where)
            if not mine or not mine["mine"] or await session.row("rollouts.active_of_stage", **where):
                return None  # another worker, or a person, is at it
            newest = {
                row["name"]: row["snapshot"] for row in await session.fetch("knowledge.list", workspace=scope.workspace)
            }
            for use in release.manifest.knowledge:
                snapshot = newest.get(use.name)
                if use.name not in release.follows or snapshot in (None, use.snapshot):
                    continue
                about = {**where, "knowledge": use.name, "snapshot": snapshot}
                if await session.row("refreshes.tried", **about, pause=_PAUSE_SECONDS) is None:
                    stable = await self.gate.stable_that_follows(session, release.workspace, release.app, stage)
                    if stable is None or stable.number != release.number:
                        return None
                    refresh = f"refresh_{secrets.token_hex(8)}"
                    return await session.row("refreshes.insert", **about, id=refresh, stable=release.number)
        return None


@dataclass(frozen=True, slots=True)
class Refresh:
    """The job `refresh`: its argument is a refresh's id, its result the id and the state that it ended in."""

    store: Store
    keys: LogKeys
    policy: RefreshPolicy
    catalogue: Catalogue
    directory: Callable[[], Directory]
    renew: Callable[[], Awaitable[None]]
    evaluate: Evaluate
    rollouts: Rollouts

    async def __call__(self, steps: Steps, refresh: str) -> Result:
        await steps.run("derive", self._derive, steps.scope, refresh)
        tests = await steps.run("test the data", self._test, steps.scope, refresh)
        asked = None
        if not any(test["verdict"] == "fail" for test in tests):
            asked = await steps.run("ask golden questions", self._ask, steps, refresh)
        return await steps.run("decide", self._decide, steps.scope, refresh, tests, asked)

    async def _derive(self, scope: Scope, refresh: str) -> int:
        async with self.store.within(scope) as session:
            row, stable, _ = await self._read(session, scope, refresh)
            wanted = Wanted(knowledge={row["knowledge"]: row["snapshot"]})
            made = await derive(session, scope, stable, wanted, self.catalogue, self.directory(), None)
            await session.run("refreshes.derived", refresh=refresh, release=made.number)
        return made.number

    async def _test(self, scope: Scope, refresh: str) -> list[dict[str, Any]]:
        async with self.store.within(scope) as session:
            row, stable, _ = await self._read(session, scope, refresh)
            [pinned] = [use.snapshot for use in stable.manifest.knowledge if use.name == row["knowledge"]]
            where = {"workspace": scope.workspace, "knowledge": row["knowledge"]}
            found = [await session.row("snapshots.figures", **where, snapshot=s) for s in (pinned, row["snapshot"])]
        before, after = (msgspec.convert(one, Snapshot) for one in found)
        return run_data_tests(figures(before, after), self.policy.tests)

    async def _ask(self, steps: Steps, refresh: str) -> dict[str, Any]:
        await self.renew()  # the release may be younger than what this process knows
        async with self.store.within(steps.scope) as session:
            _, stable, release = await self._read(session, steps.scope, refresh)
        assert release is not None
        found = await self.evaluate.against(steps, refresh, release, stable, draw)
        verdict, metrics = found.comparison.verdict, found.comparison.metrics
        told = ("candidate", "baseline", "difference", "n", "verdict", "reason")
        shown = [{"metric": m.metric.name, **{name: getattr(m.overall, name) for name in told}} for m in metrics]
        return {"verdict": verdict, "data_set": found.data_set, "cases": found.cases, "metrics": shown}

    async def _decide(
        self, scope: Scope, refresh: str, tests: Sequence[Mapping[str, Any]], asked: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        await self.renew()
        routes = self.rollouts.routes
        async with self.store.within(scope) as session:
            row, stable, release = await self._read(session, scope, refresh)
            assert release is not None
            where = {"workspace": row["workspace"], "app": row["app"], "stage": row["stage"]}
            await routes.lock(session, **where)
            before = await session.row("refreshes.get", refresh=refresh)
            if before is None or before["state"] != "running":  # a step that runs again
                return {"refresh": refresh, "state": before and before["state"]}
            now = await session.row("routes.stable", **where)
            if now is None or now["stable"] != stable.number or await routes.active(session, **where):
                await end(session, row, "put_off", ["Meanwhile the stage got another release, or a candidate."])
                return {"refresh": refresh, "state": "put_off"}
            verdict, reasons = _verdict(tests, asked, release, stable)
            told = {"baseline": stable.digest, "standard": evidence.standard(stable.facts)}
            about = {name: row[name] for name in ("stage", "knowledge", "snapshot")} | told
            tested: evidence.Found = ("measured", "fail" if asked is None else "pass")
            await evidence.record(session, self.keys, release, DATA_TESTS, tested, _SYSTEM, {**about, "tests": tests})
            if asked is not None:
                found: evidence.Found = ("measured", asked["verdict"])
                await evidence.record(session, self.keys, release, REFRESH, found, _SYSTEM, {**about, **asked})
            if verdict == "pass":
                checked = await routes.gate.check_refresh(session, release, row["stage"])
                reasons = [f"{criterion.id}: {lack}" for criterion, lack in checked if lack]
                if not checked:
                    reasons = [
                        f"{stable.label} came to {row['stage']} without evidence, or its targets or questions have "
                        f"changed since: evaluate it and promote it again."
                    ]
                verdict = "inconclusive" if reasons else "pass"
            if verdict == "pass" and plan_of(stable).refresh == "by_steps":
                await self.rollouts.begin(session, _SYSTEM, release, row["stage"])
            elif verdict == "pass":
                await routes.make_stable(session, _SYSTEM, release, row["stage"], False, action="refreshed")
            await end(session, row, _ENDS[verdict], reasons)
        return {"refresh": refresh, "state": _ENDS[verdict]}

    async def _read(self, session: Session, scope: Scope, refresh: str) -> tuple[Row, Release, Release | None]:
        """The refresh, the stable release that it began with, and the new one where it is derived and known here."""
        row = await session.row("refreshes.get", refresh=refresh)
        if row is None:
            raise NotFound(f"There is no refresh {refresh}.")
        releases, app = self.directory().releases, row["app"]
        return row, releases[scope.workspace, app, row["stable"]], releases.get((scope.workspace, app, row["release"]))


async def end(session: Session, row: Row, state: RefreshState, reasons: Sequence[str]) -> None:
    """Ends a refresh, once, and notes the decision for the log; one that is put off was not decided."""
    if await session.row("refreshes.end", refresh=row["id"], state=state, reasons=as_json(reasons)) is None:
        return
    if state != "put_off":
        about = {name: row[name] for name in ("app", "stage", "stable", "release", "knowledge", "snapshot")}
        told = {"refresh": row["id"], "verdict": state, "reasons": reasons}
        await note(session, row["workspace"], Kind.REFRESH_DECIDED, _SYSTEM, {**about, **told})


def _verdict(
    tests: Sequence[Mapping[str, Any]], asked: Mapping[str, Any] | None, release: Release, stable: Release
) -> tuple[Finding, list[str]]:
    """The verdict of the data tests and the golden questions, and its reasons."""
    if asked is None:
        failed = [test for test in tests if test["verdict"] == "fail"]
        return "fail", [f"{t['id']}: {t['figure']} {t['value']:.1%}, at most {t['most']:.0%}" for t in failed]
    if not asked["cases"]:
        return "inconclusive", [f"{stable.label} came without golden questions: set evals.golden."]
    verdict: Finding = asked["verdict"]
    said = [f"{m['metric']}: {m['reason']}" for m in asked["metrics"] if m["verdict"] == verdict]
    more = f"`proveout eval run {release.label} --baseline {stable.label}` shows the answers"
    return verdict, [] if verdict == "pass" else [*said, more]


def _place(case: Case) -> bytes:
    return hashlib.sha256(case.id.encode()).digest()


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _unread(snapshot: Snapshot) -> float:
    return _share(snapshot.unread, snapshot.documents + snapshot.unread)


def _empty(snapshot: Snapshot) -> float:
    return _share(sum(not chunks for _, chunks, _ in snapshot.members.values()), len(snapshot.members))


def _duplicates(snapshot: Snapshot) -> float:
    copies = Counter(digest for digest, _, _ in snapshot.members.values())
    return _share(len(snapshot.members) - len(copies), len(snapshot.members))


def _widened(before: Sequence[str], after: Sequence[str]) -> bool:
    return EVERYONE not in before and not set(after) <= set(before)
