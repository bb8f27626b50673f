"""Whoever asks for whatever in whichever order: a stage is entered with its evidence, or by breaking the glass."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from proveout.access.rights import ROLES
from proveout.domain import (
    Basis,
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
    StageName,
)
from proveout.errors import Conflict, GateClosed, InvalidInput, NotFound
from proveout.ledger.integrate import LogKeys
from proveout.releases import evidence
from proveout.releases.gate import Gate
from proveout.releases.policy import read_policy
from proveout.releases.routes import Routes
from proveout.store.configuration import load
from proveout.store.pool import Store, as_json
from proveout.store.sealing import Keyring

PEOPLE = {
    name: Principal(Key(f"key_{name}", name, "red", role), ROLES[role])
    for name, role in {"olga": "owner", "dev": "developer", "opi": "operator", "ann": "approver"}.items()
}
AUTHOR = "olga"
REASON = "the other release leaks data, and its fix cannot wait"

people, numbers = st.sampled_from(sorted(PEOPLE)), st.sampled_from([1, 2, 3])
gated: st.SearchStrategy[StageName] = st.sampled_from(["beta", "production"])
stages: st.SearchStrategy[StageName] = st.sampled_from(["poc", "beta", "production"])
findings: st.SearchStrategy[Finding] = st.sampled_from(["pass", "pass", "pass", "fail", "inconclusive"])


def release(number: int) -> Release:
    manifest = Manifest(
        "desk", (ModelChoice(ModelUse("echo", str(number))),), (), Parameters(), PromptTexts("", ""), (), "quote"
    )
    [author] = [p.key.id for n, p in PEOPLE.items() if n == AUTHOR]
    return Release("red", "desk", number, f"sha256:{number}", manifest, {}, None, author)  # type: ignore[arg-type]


RELEASES = {number: release(number) for number in (1, 2, 3)}


def machine(dsn: str, loop: asyncio.AbstractEventLoop) -> type[RuleBasedStateMachine]:
    """The machine, over this database."""

    class Doors(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            self.evaluated: dict[int, Finding] = {}
            self.drilled: dict[int, Finding] = {}
            self.words: dict[tuple[int, str], dict[str, Finding]] = {}
            self.tenures: dict[str, list[tuple[int, bool]]] = {"poc": [], "beta": [], "production": []}
            self.withdrawn: dict[str, set[int]] = {"poc": set(), "beta": set(), "production": set()}
            loop.run_until_complete(self._open())

        async def _open(self) -> None:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("truncate proveout.workspaces cascade")
            self.store = Store(dsn, size=2)
            await self.store.open()
            self.keys = LogKeys(Keyring(b"m" * 32), "test")
            self.routes = Routes(self.store, Gate(read_policy(None), self.keys))
            async with self.store.unscoped() as session:
                await session.run("workspaces.ensure", name="red", secret=b"s" * 32)
                for made in RELEASES.values():
                    manifest, about = as_json(made.manifest), {"workspace": "red", "app": "desk"}
                    row = {"digest": made.digest, "manifest": manifest, "golden": b"", "scorers": None}
                    row["author"] = made.author
                    await session.row("releases.insert", **about, **row)
                    await session.run("facts.put", **about, number=made.number, facts=as_json({}))

        def teardown(self) -> None:
            loop.run_until_complete(self.store.close())

        def _record(self, number: int, kind: str, verdict: Finding, who: str, facts: dict[str, str]) -> None:
            async def record() -> None:
                principal = PEOPLE[who]
                basis: Basis = "measured" if kind == "evaluation" else "attested"
                async with self.store.within(principal.scope) as session:
                    found = (basis, verdict)
                    await evidence.record(
                        session,
                        self.keys,
                        RELEASES[number],
                        kind,
                        found,
                        principal.key.id,
                        facts,
                    )

            loop.run_until_complete(record())

        @rule(number=numbers, verdict=findings, who=people)
        def evaluate(self, number: int, verdict: Finding, who: str) -> None:
            self._record(number, "evaluation", verdict, who, {})
            self.evaluated[number] = verdict

        @rule(number=numbers, verdict=findings, who=people)
        def drill(self, number: int, verdict: Finding, who: str) -> None:
            self._record(number, "drill", verdict, who, {})
            self.drilled[number] = verdict

        @rule(number=numbers, stage=gated, verdict=st.sampled_from(["pass", "pass", "fail"]), who=people)
        def approve(self, number: int, stage: str, verdict: Finding, who: str) -> None:
            self._record(number, "approval", verdict, who, {"stage": stage})
            self.words.setdefault((number, stage), {})[who] = verdict

        @rule(number=numbers, without=st.sampled_from(["", "evaluation", "beta", "drill", "approval"]))
        def all_but(self, number: int, without: str) -> None:
            """All that production demands but one thing, then straight to its door."""
            if without != "evaluation":
                self.evaluate(number, "pass", "dev")
            if without != "beta":
                self.promote(number, "beta", "opi")
            if without != "drill":
                self.drill(number, "pass", "dev")
            self.approve(number, "production", "pass", AUTHOR if without == "approval" else "ann")
            self.forge(number)
            self.promote(number, "production", "opi")

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
            if self.evaluated.get(number) != "pass":
                return False
            if stage == "beta":
                return True
            words = {w: v for w, v in self.words.get((number, stage), {}).items() if w != AUTHOR}
            approved = "pass" in words.values() and "fail" not in words.values()
            was_in_beta = (number, False) in self.tenures["beta"]
            return approved and was_in_beta and self.drilled.get(number) == "pass"

        @contextmanager
        def _noted(self, stage: str, number: int, broke: bool) -> Iterator[None]:
            yield
            if not self.tenures[stage] or self.tenures[stage][-1][0] != number:
                self.tenures[stage].append((number, broke))
                self.withdrawn[stage].discard(number)

        @rule(number=numbers, stage=stages, who=people)
        def promote(self, number: int, stage: StageName, who: str) -> None:
            try:
                with self._noted(stage, number, broke=False):
                    loop.run_until_complete(self.routes.promote(PEOPLE[who], RELEASES[number], stage))
            except GateClosed as closed:
                assert closed.missing and not self._sound(number, stage)
            else:
                assert self._sound(number, stage)

        @rule(number=numbers, stage=gated, who=people, reason=st.sampled_from(["soon", REASON]))
        def break_the_glass(self, number: int, stage: StageName, who: str, reason: str) -> None:
            broke = not self._sound(number, stage)
            try:
                with self._noted(stage, number, broke):
                    loop.run_until_complete(self.routes.promote(PEOPLE[who], RELEASES[number], stage, reason))
            except NotFound:
                assert Right.RELEASES_BREAK_GLASS not in PEOPLE[who].rights
            except InvalidInput:
                assert reason != REASON
            else:
                assert who == "olga" and reason == REASON

        @rule(stage=stages, to=st.one_of(st.none(), numbers), who=people)
        def roll_back(self, stage: StageName, to: int | None, who: str) -> None:
            came = self.tenures[stage]
            try:
                back = loop.run_until_complete(self.routes.roll_back(PEOPLE[who], "desk", stage, to, RELEASES))
            except NotFound:
                assert not came
            except Conflict:
                assert to is None or (to, False) not in came or to == came[-1][0] or (to, True) in came
            else:
                assert (back.number, False) in came and to in (None, back.number)
                self.withdrawn[stage].add(came[-1][0])
                assert to is not None or back.number not in self.withdrawn[stage]
                came.append((back.number, False))

        @invariant()
        def a_stage_serves_what_came_through_its_gate(self) -> None:
            directory = loop.run_until_complete(load(self.store))
            served = {stage: route.stable for (_, _, stage), route in directory.routes.items()}
            assert served == {stage: came[-1][0] for stage, came in self.tenures.items() if came}

    return Doors


def test_no_way_into_a_stage_without_its_evidence(dsn: str) -> None:
    loop = asyncio.new_event_loop()
    quick = settings(max_examples=30, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck))
    try:
        run_state_machine_as_test(machine(dsn, loop), settings=quick)
    finally:
        loop.close()
