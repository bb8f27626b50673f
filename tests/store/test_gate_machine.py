"""Whoever asks for whatever in whichever order: a stage is entered with its evidence, or by breaking the glass."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from proveout.access.rights import ROLES
from proveout.domain import (
    Basis,
    Directory,
    Finding,
    Key,
    Manifest,
    ModelChoice,
    ModelUse,
    Parameters,
    Principal,
    PromptTexts,
    Release,
    Right,
    Scope,
    StageName,
)
from proveout.errors import Conflict, GateClosed, InvalidInput, NotFound
from proveout.ledger.integrate import LogKeys
from proveout.releases import evidence
from proveout.releases.gate import Gate
from proveout.releases.policy import read_policy
from proveout.releases.rollouts import Order, Rollouts
from proveout.releases.routes import Routes
from proveout.store.configuration import load
from proveout.store.events import Kind
from proveout.store.pool import Store, as_json
from proveout.store.sealing import Keyring

PEOPLE = {
    name: Principal(Key(f"key_{name}", name, "red", role), ROLES[role])
    for name, role in {"olga": "owner", "dev": "developer", "opi": "operator", "ann": "approver"}.items()
}
AUTHOR = "olga"
SYSTEM = Scope.system("red", "rollouts")
PLAN = {"steps": [0.5], "minimum": {"calls": 20}, "seconds_per_step": 0, "margins": {"bad_events": 0.3, "latency": 0.3}}
DEMANDED = ["evaluation", "targets", "beta", "drill", "approval"]
DOORS = ["promote", "start", "order", "tick"]
REASON = "the other release leaks data, and its fix cannot wait"

people, numbers = st.sampled_from(sorted(PEOPLE)), st.sampled_from([1, 2, 3])
gated: st.SearchStrategy[StageName] = st.sampled_from(["beta", "production"])
stages: st.SearchStrategy[StageName] = st.sampled_from(["poc", "beta", "production"])
orders: st.SearchStrategy[Order] = st.sampled_from(["pause", "resume", "promote", "abort"])
findings: st.SearchStrategy[Finding] = st.sampled_from(["pass", "pass", "pass", "fail", "inconclusive"])


def release(number: int) -> Release:
    manifest = Manifest(
        "desk", (ModelChoice(ModelUse("echo", str(number))),), (), Parameters(), PromptTexts("", ""), (), "quote"
    )
    [author] = [p.key.id for n, p in PEOPLE.items() if n == AUTHOR]
    facts = {"rollout": PLAN, "targets": {"correct": ">= 0.9"}}
    return Release("red", "desk", number, f"sha256:{number}", manifest, facts, None, author)  # type: ignore[arg-type]


# Requests that end where a rollout runs, as many of either arm.
ANSWERED = """
with begun as (
    insert into proveout.intents
        (request, workspace, key, purpose, app, release, stage, model, parameters, streamed, begun, arm, weight)
    select gen_random_uuid(), workspace, key, 'request', app, case arm when 'stable' then stable else release end,
           stage, 'echo', '{}', false, clock_timestamp(), arm, 0.5
    from proveout.rollouts, generate_series(1, 160), unnest(array['stable', 'candidate']) arm
    where state in ('running', 'paused', 'frozen')
    returning request, workspace, arm
), ended as (
    insert into proveout.completions
        (request, workspace, outcome, prompt_tokens, completion_tokens, model, served_by, runtime, schema,
         first_sentence_ms, total_ms, ended)
    select request, workspace, case when arm = 'candidate' then %(outcome)s else 'answered' end, 1, 1, 'echo', '', '',
           1, 4, 5, clock_timestamp() from begun
)
insert into proveout.events (workspace, kind, at, request, position)
select workspace, 'serving:request:ended', clock_timestamp(), request,
       row_number() over () + coalesce((select max(position) from proveout.events), 0)
from begun"""


def machine(dsn: str, loop: asyncio.AbstractEventLoop) -> type[RuleBasedStateMachine]:
    """The machine, over this database."""

    class Doors(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            self.evaluated: dict[int, tuple[Finding, object]] = {}
            self.drilled: dict[int, Finding] = {}
            self.words: dict[tuple[int, str], dict[str, tuple[Finding, object]]] = {}
            self.tenures: dict[str, list[tuple[int, bool]]] = {"poc": [], "beta": [], "production": []}
            self.withdrawn: dict[str, set[int]] = {"poc": set(), "beta": set(), "production": set()}
            self.rolling: dict[str, int] = {}
            self.paused: set[str] = set()
            self.just: dict[str, int] = {}  # what was stable when the newest rollout was rolled back
            self.releases = {number: release(number) for number in (1, 2, 3)}
            self.broken = 0
            loop.run_until_complete(self._open())

        async def _open(self) -> None:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("truncate proveout.workspaces, proveout.events, proveout.intents cascade")
            self.store = Store(dsn, size=2)
            await self.store.open()
            self.keys = LogKeys(Keyring(b"m" * 32), "test")
            self.routes = Routes(self.store, Gate(read_policy(None), self.keys))
            self.workers = [Rollouts(self.store, self.routes, self._directory) for _ in range(2)]
            async with self.store.unscoped() as session:
                await session.run("workspaces.ensure", name="red", secret=b"s" * 32)
                for made in self.releases.values():
                    manifest, about = as_json(made.manifest), {"workspace": "red", "app": "desk"}
                    row = {"digest": made.digest, "manifest": manifest, "golden": b"", "scorers": None, "judge": None}
                    row["author"] = made.author
                    await session.row("releases.insert", **about, **row)
                    await session.run("facts.put", **about, number=made.number, facts=as_json({}))

        def teardown(self) -> None:
            loop.run_until_complete(self.store.close())
            with psycopg.connect(dsn) as connection:
                told = "select count(*) from proveout.events where kind = %s"
                assert connection.execute(told, (Kind.GLASS_BROKEN,)).fetchone() == (self.broken,)  # each is on record

        def _directory(self) -> Directory:
            return Directory(1, {}, {("red", "desk", number): r for number, r in self.releases.items()}, {}, b"")

        def _record(self, number: int, kind: str, verdict: Finding, who: str, facts: dict[str, Any]) -> None:
            async def record() -> None:
                principal = PEOPLE[who]
                basis: Basis = "measured" if kind == "evaluation" else "attested"
                async with self.store.within(principal.scope) as session:
                    found = (basis, verdict)
                    await evidence.record(
                        session,
                        self.keys,
                        self.releases[number],
                        kind,
                        found,
                        principal.key.id,
                        facts,
                    )

            loop.run_until_complete(record())

        @rule(number=numbers, verdict=findings, who=people)
        def evaluate(self, number: int, verdict: Finding, who: str) -> None:
            self._record(
                number, "evaluation", verdict, who, {"standard": evidence.standard(self.releases[number].facts)}
            )
            self.evaluated[number] = verdict, self._targets(number)

        @rule(number=numbers, verdict=findings, who=people)
        def drill(self, number: int, verdict: Finding, who: str) -> None:
            self._record(number, "drill", verdict, who, {})
            self.drilled[number] = verdict

        @rule(number=numbers, stage=gated, verdict=st.sampled_from(["pass", "pass", "fail"]), who=people)
        def approve(self, number: int, stage: str, verdict: Finding, who: str) -> None:
            standard = evidence.standard(self.releases[number].facts)
            self._record(number, "approval", verdict, who, {"stage": stage, "standard": standard})
            self.words.setdefault((number, stage), {})[who] = verdict, self._targets(number)

        @rule(number=numbers, least=st.sampled_from(["0.1", "0.9"]))
        def aim(self, number: int, least: str) -> None:
            """Its developer declares other targets for the same digest."""
            facts = {**self.releases[number].facts, "targets": {"correct": f">= {least}"}}
            self.releases[number] = replace(self.releases[number], facts=facts)

        def _targets(self, number: int) -> object:
            return self.releases[number].facts["targets"]

        @rule(
            number=numbers,
            without=st.sampled_from(["", *DEMANDED]),
            door=st.sampled_from(DOORS),
        )
        def all_but(self, number: int, without: str, door: str) -> None:
            """All that production demands but one thing, then straight to one of its doors. Before those at the end of
            a rollout, the thing is taken away after its start."""
            if door != "promote" and not self.tenures["production"]:  # a candidate is compared with something
                self.break_the_glass(number % 3 + 1, "production", "olga", REASON)
            late = door in ("order", "tick")
            if without != "beta":
                self.evaluate(number, "pass", "dev")
                self.promote(number, "beta", "opi")
            if without != "drill" or late:
                self.drill(number, "pass", "dev")
            self.approve(number, "production", "pass", AUTHOR if without == "approval" and not late else "ann")
            self.forge(number)
            if late:
                self.start(number, "production", "opi")
            if without == "targets":
                self.aim(number, "0.1" if self._targets(number) == {"correct": ">= 0.9"} else "0.9")
            elif without == "evaluation":
                self.evaluate(number, "inconclusive", "dev")
            elif without == "drill" and late:
                self.drill(number, "fail", "dev")
            elif without == "approval" and late:
                self.approve(number, "production", "fail", "ann")
            if door == "tick":
                self.tick("answered")
            elif door == "order":
                self.order("production", "promote", "opi")
            else:
                (self.promote if door == "promote" else self.start)(number, "production", "opi")

        @rule(number=numbers)
        def forge(self, number: int) -> None:
            """Somebody writes evidence into the database that another release has."""
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(
                    "insert into proveout.evidence select id || clock_timestamp(), workspace, app, %s, kind, basis, "
                    "'pass', author, facts, now(), expires, signature from proveout.evidence "
                    "where digest <> %s limit 9",
                    (f"sha256:{number}", f"sha256:{number}"),
                )

        def _sound(self, number: int, stage: str) -> bool:
            """The shipped policy, said again."""
            if stage == "poc":
                return True
            if self.evaluated.get(number) != ("pass", self._targets(number)):
                return False
            if stage == "beta":
                return True
            words = [word for who, word in self.words.get((number, stage), {}).items() if who != AUTHOR]
            refused = any(verdict == "fail" for verdict, _ in words)
            approved = ("pass", self._targets(number)) in words and not refused
            was_in_beta = (number, False) in self.tenures["beta"]
            return approved and was_in_beta and self.drilled.get(number) == "pass"

        @contextmanager
        def _noted(self, stage: str, number: int, broke: bool) -> Iterator[None]:
            yield
            self.broken += broke
            if not self.tenures[stage] or self.tenures[stage][-1][0] != number:
                self._came(stage, number, broke)

        def _came(self, stage: str, number: int, broke: bool) -> None:
            self.rolling.pop(stage, None)
            self.just.pop(stage, None)
            self.tenures[stage].append((number, broke))
            self.withdrawn[stage].discard(number)

        @rule(number=numbers, stage=stages, who=people)
        def promote(self, number: int, stage: StageName, who: str) -> None:
            try:
                with self._noted(stage, number, broke=False):
                    loop.run_until_complete(self.routes.promote(PEOPLE[who], self.releases[number], stage))
            except GateClosed as closed:
                assert closed.missing and not self._sound(number, stage)
            else:
                assert self._sound(number, stage)

        @rule(number=numbers, stage=gated, who=people, reason=st.sampled_from(["soon", REASON]))
        def break_the_glass(self, number: int, stage: StageName, who: str, reason: str) -> None:
            broke = not self._sound(number, stage)
            try:
                with self._noted(stage, number, broke):
                    loop.run_until_complete(self.routes.promote(PEOPLE[who], self.releases[number], stage, reason))
            except NotFound:
                assert Right.RELEASES_BREAK_GLASS not in PEOPLE[who].rights
            except InvalidInput:
                assert reason != REASON
            else:
                assert who == "olga" and reason == REASON

        @rule(stage=stages, to=st.one_of(st.none(), numbers), who=people)
        def roll_back(self, stage: StageName, to: int | None, who: str) -> None:
            came = self.tenures[stage]
            running = self.rolling.get(stage)
            try:
                back = loop.run_until_complete(self.routes.roll_back(PEOPLE[who], "desk", stage, to, self.releases))
            except NotFound:
                assert not came
            except Conflict:
                now, glass = came[-1][0], dict(came)  # of each release, whether it broke the glass when it came last
                good = [n for n in glass if not glass[n] and n != now and n not in self.withdrawn[stage]]
                if to is None and self.just.get(stage) == now:
                    return  # what somebody wanted to end has just ended
                assert not good if to is None else (to, False) not in came or to == now or (to, True) in came
            else:
                assert running is None or self.rolling.pop(stage) == running
                if running is not None and to in (None, came[-1][0]):  # its candidate is what is rolled back from
                    assert back.number == came[-1][0]
                    self.just[stage] = back.number
                    return
                assert running is not None or to is not None or self.just.get(stage) != came[-1][0]
                self.just.pop(stage, None)
                assert (back.number, False) in came and to in (None, back.number)
                self.withdrawn[stage].add(came[-1][0])
                assert to is not None or back.number not in self.withdrawn[stage]
                self.withdrawn[stage].discard(back.number)
                came.append((back.number, False))

        @rule(number=numbers, stage=stages, who=people)
        def start(self, number: int, stage: StageName, who: str) -> None:
            try:
                loop.run_until_complete(self.workers[0].start(PEOPLE[who], self.releases[number], stage))
            except Conflict as refused:
                nothing_to_beat = not self.tenures[stage] or self.tenures[stage][-1][0] == number
                closed = isinstance(refused, GateClosed) and not self._sound(number, stage)
                assert nothing_to_beat or stage in self.rolling or closed
            else:
                assert self._sound(number, stage) and self.tenures[stage] and stage not in self.rolling
                self.rolling[stage] = number
                self.paused.discard(stage)
                self.just.pop(stage, None)

        @rule(stage=stages, order=orders, who=people)
        def order(self, stage: StageName, order: Order, who: str) -> None:
            try:
                loop.run_until_complete(self.workers[0].order(PEOPLE[who], "desk", stage, order))
            except NotFound:
                assert stage not in self.rolling
            except GateClosed as closed:
                assert order == "promote" and closed.missing and not self._sound(self.rolling[stage], stage)
            except Conflict:
                assert order == ("pause" if stage in self.paused else "resume")
            else:
                assert order != "promote" or self._sound(self.rolling[stage], stage)
                if order == "promote":
                    self._came(stage, self.rolling[stage], False)
                elif order == "abort":
                    del self.rolling[stage]
                else:
                    (self.paused.add if order == "pause" else self.paused.discard)(stage)

        @rule(outcome=st.sampled_from(["answered", "answered", "failed"]))
        def tick(self, outcome: str) -> None:
            """Users ask, and two workers look at once."""

            async def look() -> None:
                await asyncio.gather(*(worker.tick(SYSTEM) for worker in self.workers))

            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(ANSWERED, {"outcome": outcome})
            loop.run_until_complete(look())
            for stage, number in [*self.rolling.items()]:
                if outcome == "failed":
                    del self.rolling[stage]
                    self.just[stage] = self.tenures[stage][-1][0]
                elif stage not in self.paused and self._sound(number, stage):
                    self._came(stage, number, False)

        @invariant()
        def a_stage_serves_what_came_through_its_gate(self) -> None:
            directory = loop.run_until_complete(load(self.store))
            served = {stage: route.stable for (_, _, stage), route in directory.routes.items()}
            assert served == {stage: came[-1][0] for stage, came in self.tenures.items() if came}
            let_in = {stage: r.candidate.release for (_, _, stage), r in directory.routes.items() if r.candidate}
            assert let_in == self.rolling

    return Doors


def test_every_door_asks_for_everything(dsn: str) -> None:
    loop = asyncio.new_event_loop()
    try:
        for door, without in itertools.product(DOORS, ["", *DEMANDED]):
            doors: Any = machine(dsn, loop)()
            doors.begin()
            doors.all_but(1, without, door)
            doors.a_stage_serves_what_came_through_its_gate()
            stable, candidate = doors.tenures["production"][-1:] == [(1, False)], doors.rolling.get("production") == 1
            assert (candidate if door == "start" else stable) == (not without), (door, without)
            doors.teardown()
    finally:
        loop.close()


def test_no_way_into_a_stage_without_its_evidence(dsn: str) -> None:
    loop = asyncio.new_event_loop()
    quick = settings(max_examples=30, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck))
    try:
        run_state_machine_as_test(machine(dsn, loop), settings=quick)
    finally:
        loop.close()
