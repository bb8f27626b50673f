"""Derived releases, and stages that follow their knowledge: each snapshot once, whoever looks, whatever dies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from bases import Bases, InPlace, run
from proveout.access.rights import ROLES
from proveout.domain import (
    Directory,
    Key,
    KnowledgeUse,
    Manifest,
    ModelChoice,
    ModelUse,
    Parameters,
    Principal,
    PromptTexts,
    Release,
    Scope,
)
from proveout.engine.catalogue import Catalogue
from proveout.errors import Conflict, GateClosed, InvalidInput, NotFound
from proveout.evals.compare import Comparison
from proveout.jobs.runtime import Jobs, JobState
from proveout.ledger.integrate import LogKeys
from proveout.releases import evidence
from proveout.releases.derive import Made, Wanted, derive
from proveout.releases.digest import digest
from proveout.releases.gate import Gate
from proveout.releases.measure import Compared, Evaluate
from proveout.releases.policy import read_policy
from proveout.releases.refresh import Refresh, Refreshes
from proveout.releases.rollouts import Rollouts
from proveout.releases.routes import Routes
from proveout.store.configuration import load
from proveout.store.pool import Row, as_json

SYSTEM = Scope.system("red", "test")
OWNER = Principal(Key("key_olga", "olga", "red", "owner"), ROLES["owner"])
MANIFEST = Manifest(
    "desk",
    (ModelChoice(ModelUse("up/x", "old")),),
    (ModelUse("up/y", "old"),),
    Parameters(),
    PromptTexts("s", "a"),
    (KnowledgeUse("kb", ""),),
    "quote",
)


class Models:
    """A catalogue in which every model is of a newer version, but one that is gone."""

    def use(self, name: str) -> ModelUse:
        if name == "up/gone":
            raise NotFound("There is no model up/gone.")
        return ModelUse(name, "new")


@dataclass
class Hands:
    """Jobs that are kept, and not done until they are."""

    asked: list[str] = field(default_factory=list)
    failed: Mapping[str, str] | None = None

    async def enqueue(self, name: str, workspace: str, *ids: str, job: str, queue: str) -> str:
        assert queue == "measuring"
        if job not in self.asked:
            self.asked.append(job)
        return job

    async def state(self, workspace: str, job: str) -> JobState:
        if job not in self.asked:
            raise NotFound(f"There is no job {job}.")
        return JobState("failed", None, None, self.failed) if self.failed else JobState("running", None, None, None)


@dataclass
class Judge:
    """Says of every comparison what it was told."""

    verdict: str = "pass"

    async def against(self, *_: Any) -> Compared:
        return Compared("sha256:d", 120, Comparison(cast(Any, self.verdict), [], None))


class Desk:
    """An app whose knowledge is pushed, with all that makes, gates and refreshes its releases."""

    def __init__(self, bases: Bases) -> None:
        self.bases, self.store = bases, bases.store
        self.keys = LogKeys(bases.keyring, "test")
        self.policy = read_policy(None)
        self.routes = Routes(self.store, Gate(self.policy, self.keys))
        self.hands, self.judge = Hands(), Judge()
        self.directory = cast(Directory, None)
        self.rollouts = Rollouts(self.store, self.routes, lambda: self.directory)
        self.refreshes = Refreshes(self.store, cast(Jobs, self.hands), lambda: self.directory, self.routes.gate)

    async def renew(self) -> None:
        self.directory = await load(self.store)

    async def open(self, **facts: object) -> None:
        """The app with a release that follows live, and one derived from it that is stable in beta."""
        await self.push(a="one", b="two", c="three")
        async with self.store.unscoped() as session:
            row = {"workspace": "red", "app": "desk", "digest": digest(MANIFEST), "manifest": as_json(MANIFEST)}
            kept = {"golden": b"golden", "scorers": b"scorers", "judge": None, "author": "key_dev"}
            await session.row("releases.insert", **row, **kept)
            await session.run("facts.put", workspace="red", app="desk", number=1, facts=as_json(facts))
        await self.renew()
        await self.derive(1, Wanted(knowledge={"kb": "latest"}))

    async def push(self, **documents: str) -> str:
        rows = {name: (text, ["everyone"]) for name, text in documents.items()}
        return str((await self.bases.push("red", "kb", rows))["snapshot"])

    async def derive(self, number: int, wanted: Wanted, author: str | None = "key_olga") -> Made:
        catalogue = cast(Catalogue, Models())
        async with self.store.within(OWNER.scope) as session:
            made = await derive(session, OWNER.scope, self.release(number), wanted, catalogue, self.directory, author)
        await self.renew()
        return made

    def release(self, number: int) -> Release:
        return self.directory.releases["red", "desk", number]

    async def enter(self, number: int, break_glass: str = "") -> None:
        """Into beta, with an evaluation unless the glass is broken."""
        release = self.release(number)
        if not break_glass:
            facts = {"standard": evidence.standard(release.facts)}
            async with self.store.within(OWNER.scope) as session:
                await evidence.record(
                    session, self.keys, release, evidence.EVALUATION, ("measured", "pass"), "key_olga", facts
                )
        await self.routes.promote(OWNER, release, "beta", break_glass)
        await self.renew()

    async def follow(self) -> list[str]:
        """What two workers that look at once begin anew."""
        before = set(self.hands.asked)
        await asyncio.gather(self.refreshes.tick(SYSTEM), self.refreshes.tick(SYSTEM))
        return [job for job in self.hands.asked if job not in before]

    async def work(self, refresh: str) -> str:
        job = Refresh(
            self.store,
            self.keys,
            self.policy.refresh,
            cast(Catalogue, Models()),
            lambda: self.directory,
            self.renew,
            cast(Evaluate, self.judge),
            self.rollouts,
        )
        state = str((await job(InPlace(SYSTEM), refresh))["state"])
        await self.renew()
        return state

    async def all(self, sql: str) -> list[Row]:
        async with self.store.within(SYSTEM) as session:
            return list(await (await session._connection.execute(sql.encode())).fetchall())

    @property
    def stable(self) -> int:
        return self.directory.routes["red", "desk", "beta"].stable


def desk(dsn: str, work: Callable[[Desk], Awaitable[None]], **facts: object) -> None:
    async def go(bases: Bases) -> None:
        here = Desk(bases)
        await here.open(**facts)
        await work(here)

    run(dsn, ["red"], go)


def test_a_derived_release_differs_in_what_is_named(dsn: str) -> None:
    async def work(here: Desk) -> None:
        two = here.release(2)
        assert two.manifest == replace(MANIFEST, knowledge=(replace(MANIFEST.knowledge[0], snapshot=first),))
        assert two.facts["derived"] == {"from": 1, "changes": {"knowledge.kb": first}} and two.follows == {"kb"}
        assert two.facts["purpose"] == "p" and two.authors == {"key_olga", "key_dev"}
        newer = await here.push(d="four")
        for wanted, manifest, changes in (
            (Wanted(knowledge={"kb": newer}), {"knowledge": (KnowledgeUse("kb", newer),)}, {"knowledge.kb": newer}),
            (Wanted(model="echo"), {"model": (ModelChoice(ModelUse("echo", "new")),)}, {"model.echo": "new"}),
            (Wanted(without=["fallback"]), {"fallback": ()}, {"fallback": "off"}),
            (Wanted(without=["grounding"]), {"otherwise": "flag"}, {"grounding": "off"}),
            (Wanted(without=["knowledge.kb"]), {"knowledge": ()}, {"knowledge.kb": "off"}),
        ):
            made = here.release((await here.derive(2, wanted)).number)
            assert made.manifest == replace(two.manifest, **cast(Any, manifest)), wanted
            assert made.facts["derived"] == {"from": 2, "changes": changes} and made.digest == digest(made.manifest)
        latest = here.release((await here.derive(2, Wanted(latest=True))).number)
        assert latest.facts["derived"] == {
            "from": 2, "changes": {"knowledge.kb": newer, "model.up/x": "new", "model.up/y": "new"},
        }  # fmt: skip
        back = await here.derive(latest.number, Wanted(knowledge={"kb": first}))
        assert back.created and here.release(back.number).authors == {"key_olga", "key_dev"}
        assert await here.derive(back.number, Wanted(knowledge={"kb": newer})) == Made(
            latest.number, latest.digest, created=False
        )
        copied = await here.all("select distinct golden, scorers from proveout.releases")
        assert [(bytes(row["golden"]), bytes(row["scorers"])) for row in copied] == [(b"golden", b"scorers")]
        for wrong, said in (
            (Wanted(), "another model, or a component to do without .fallback, grounding, knowledge.kb"),
            (Wanted(without=["guards"]), "no 'guards' in this release; there are: fallback, grounding, knowledge.kb"),
            (Wanted(knowledge={"k": "latest"}), "knowledge: there is no 'k'"),
        ):
            with pytest.raises(InvalidInput, match=said):
                await here.derive(2, wrong)
        for gone in (Wanted(knowledge={"kb": "sha256:no"}), Wanted(model="up/gone")):
            with pytest.raises(NotFound):
                await here.derive(2, gone)

    first = ""

    async def begin(here: Desk) -> None:
        nonlocal first
        first = here.release(2).manifest.knowledge[0].snapshot
        await work(here)

    desk(dsn, begin, purpose="p")


def test_a_stage_gets_each_newer_snapshot_once(dsn: str) -> None:
    async def work(here: Desk) -> None:
        assert await here.follow() == []
        await here.enter(2)
        assert await here.follow() == []
        await here.push(d="four")
        [begun] = await here.follow()
        assert await here.follow() == [], "one at a time"
        assert (await here.work(begun), await here.work(begun), here.stable) == ("passed", "passed", 3)
        three = here.release(3)
        assert three.author == "key_olga" and three.authors == {"key_olga", "key_dev"} and three.follows == {"kb"}
        assert len(await here.all("select from proveout.tenures")) == 2
        assert len(await here.all("select from proveout.evidence where kind <> 'evaluation'")) == 2
        told = await here.all("select facts from proveout.events where kind = 'releases:refresh:decided'")
        assert [(one["facts"]["verdict"], one["facts"]["release"]) for one in told] == [("passed", 3)]

        back = await here.routes.roll_back(OWNER, "desk", "beta", None, {n: here.release(n) for n in (1, 2, 3)})
        await here.renew()
        assert (back.number, here.stable, await here.follow()) == (2, 2, []), "what was rolled back from stays away"
        here.judge.verdict = "inconclusive"
        await here.push(e="five")
        [begun] = await here.follow()
        assert (await here.work(begun), here.stable, await here.follow()) == ("inconclusive", 2, [])
        with pytest.raises(GateClosed):
            await here.routes.promote(OWNER, here.release(4), "beta")
        here.judge.verdict = "pass"
        await here.push(f="six")
        [begun] = await here.follow()
        assert (await here.work(begun), here.stable) == ("passed", 5)

    desk(dsn, work)


def test_knowledge_alone_goes_back_and_stays_there(dsn: str) -> None:
    async def work(here: Desk) -> None:
        await here.enter(2)
        newer = await here.push(d="four")
        await here.enter((await here.derive(2, Wanted(knowledge={"kb": newer}))).number)
        older = here.release(2).manifest.knowledge[0].snapshot
        back = await here.derive(3, Wanted(knowledge={"kb": older}))
        assert (back.number, back.created) == (2, False)
        await here.enter(2)
        assert await here.follow() == [], "the stage had the newer one, and was taken back"
        await here.push(e="five")
        assert len(await here.follow()) == 1

    desk(dsn, work)


def test_broken_data_is_not_asked_about(dsn: str) -> None:
    async def work(here: Desk) -> None:
        await here.enter(2)
        here.judge.verdict = "never asked"
        await here.bases.push("red", "kb", {"a": None, "b": None})
        [begun] = await here.follow()
        assert (await here.work(begun), here.stable, await here.follow()) == ("failed", 2, [])
        [row] = await here.all("select reasons from proveout.refreshes")
        assert row["reasons"] == ["refresh.lost: lost 66.7%, at most 10%"]

    desk(dsn, work)


def test_what_came_without_evidence_is_not_followed(dsn: str) -> None:
    async def work(here: Desk) -> None:
        await here.enter(2, "the pilot begins on Monday, come what may")
        await here.push(d="four")
        assert await here.follow() == []

    desk(dsn, work)


def test_what_is_measured_otherwise_than_it_came_is_not_followed(dsn: str) -> None:
    async def work(here: Desk) -> None:
        await here.enter(2)
        facts = {**here.release(2).facts, "golden": "sha256:easier"}
        async with here.store.unscoped() as session:
            await session.run("facts.put", workspace="red", app="desk", number=2, facts=as_json(facts))
        await here.renew()
        await here.push(d="four")
        assert await here.follow() == []

    desk(dsn, work, golden="sha256:1")


def test_a_stage_that_was_not_promised_to_follow_does_not(dsn: str) -> None:
    async def work(here: Desk) -> None:
        two = here.release(2)
        async with here.store.unscoped() as session:
            await session.run("facts.put", workspace="red", app="desk", number=2, facts=as_json({"purpose": "p"}))
        await here.renew()
        made = await here.derive(1, Wanted(knowledge={"kb": "latest"}))
        assert made == Made(2, two.digest, created=False) and here.release(2).follows == {"kb"}
        async with here.store.unscoped() as session:
            await session.run("facts.put", workspace="red", app="desk", number=2, facts=as_json({"purpose": "q"}))
        await here.renew()
        await here.enter(2)
        with pytest.raises(Conflict, match="serves beta and follows nothing"):
            await here.derive(1, Wanted(knowledge={"kb": "latest"}))

    desk(dsn, work)


def test_jobs_that_were_lost_failed_or_overtaken(dsn: str) -> None:
    async def work(here: Desk) -> None:
        await here.enter(2)
        await here.push(d="four")
        [begun] = await here.follow()
        here.hands.asked.clear()  # the worker died between row and job
        assert await here.follow() == [begun]
        here.hands.failed = {"code": "unavailable", "message": "The engine is away."}
        assert await here.follow() == [] and await here.follow() == [], "it pauses"
        await here.all("update proveout.refreshes set ended = now() - interval '1 hour' returning id")
        here.hands.failed = None
        [again] = await here.follow()
        assert again != begun
        await here.enter((await here.derive(2, Wanted(without=["fallback"]))).number)
        assert await here.work(again) == "put_off"
        assert [row["state"] for row in await here.all("select state from proveout.refreshes")] == ["put_off"] * 2

    desk(dsn, work)


def test_a_snapshot_that_can_never_be_asked_about_is_told_of(dsn: str) -> None:
    """A question that fails whenever it is asked looks like a model that is away: after six tries a person is told."""

    async def work(here: Desk) -> None:
        await here.enter(2)
        await here.push(d="four")
        here.hands.failed = {"code": "unavailable", "message": "1 questions found no answer: [too long]"}
        for _ in range(20):
            await here.follow()
            await here.all("update proveout.refreshes set ended = ended - interval '1 hour' returning id")
        states = [row["state"] for row in await here.all("select state from proveout.refreshes order by started")]
        assert states == ["put_off"] * 6 + ["inconclusive"]
        [event] = await here.all("select facts from proveout.events where kind = 'releases:refresh:decided'")
        assert event["facts"]["reasons"] == ["1 questions found no answer: [too long]"]

    desk(dsn, work)


def test_newer_documents_may_enter_by_steps(dsn: str) -> None:
    async def work(here: Desk) -> None:
        await here.enter(2)
        await here.push(d="four")
        [begun] = await here.follow()
        assert (await here.work(begun), here.stable) == ("passed", 2)
        candidate = here.directory.routes["red", "desk", "beta"].candidate
        assert candidate is not None and candidate.release == 3
        assert await here.follow() == []
        await here.rollouts.order(OWNER, "desk", "beta", "promote")
        await here.renew()
        assert here.stable == 3

    desk(dsn, work, rollout={"refresh": "by_steps"})


def test_nothing_but_followed_snapshots_comes_in_by_that_gate(dsn: str) -> None:
    async def work(here: Desk) -> None:
        await here.enter(2)
        stable = here.release(2)
        newer = await here.push(d="four")
        for wanted in (
            Wanted(knowledge={"kb": newer}),
            Wanted(knowledge={"kb": newer}, without=["fallback"]),
            Wanted(knowledge={"kb": newer}, model="echo"),
            Wanted(latest=True),
        ):
            release = here.release((await here.derive(2, wanted)).number)
            about = {"baseline": stable.digest}
            for kind in ("data-tests", "refresh"):
                async with here.store.within(OWNER.scope) as session:
                    await evidence.record(session, here.keys, release, kind, ("measured", "pass"), "system", about)
            if release.manifest == replace(stable.manifest, knowledge=(KnowledgeUse("kb", newer),)):
                async with here.store.within(OWNER.scope) as session:
                    assert await here.routes.gate.check_refresh(session, release, "beta")
                    checked = await here.routes.gate.check(session, release, "beta")
                    assert not any(lack for _, lack in checked)
                    other = replace(release, digest="sha256:of another")  # whose evidence this is not
                    assert any(lack for _, lack in await here.routes.gate.check(session, other, "beta"))
                    assert any(lack for _, lack in await here.routes.gate.check(session, release, "production"))
            else:
                with pytest.raises(GateClosed, match=r"beta\.evaluation: no measured evaluation"):
                    await here.routes.promote(OWNER, release, "beta")

    desk(dsn, work)


def test_evidence_against_another_release_admits_nothing(dsn: str) -> None:
    async def work(here: Desk) -> None:
        await here.enter(2)
        newer = await here.push(d="four")
        release = here.release((await here.derive(2, Wanted(knowledge={"kb": newer}))).number)
        for kind in ("data-tests", "refresh"):
            async with here.store.within(OWNER.scope) as session:
                about = {"baseline": "sha256:weaker"}
                await evidence.record(session, here.keys, release, kind, ("measured", "pass"), "system", about)
        with pytest.raises(GateClosed):
            await here.routes.promote(OWNER, release, "beta")

    desk(dsn, work)
