"""Rollouts in any order of orders, requests, deaths and controllers: the route is always the rollout's."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from proveout.errors import Conflict, NotFound
from proveout.releases.rollouts import Order, Rollouts
from proveout.store.pool import Store
from shop import OPERATOR, SYSTEM, Killed, Mortal, Shop, together

numbers = st.sampled_from([1, 2, 3])
orders = st.sampled_from(["pause", "resume", "pause", "resume", "promote", "abort"])
DECIDED = """
    select state, count(*), max(number), (array_agg(action order by number desc))[1] as last
    from proveout.rollouts r join proveout.decisions d on d.rollout = r.id group by r.id"""
ENDS = {"promoted", "rolled_back", "aborted"}


def machine(dsn: str, loop: asyncio.AbstractEventLoop) -> type[RuleBasedStateMachine]:
    """The machine, over this database."""

    class Orders(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            self.shop = Shop(Store(dsn, size=6))
            self.chance = random.Random(0)
            self.drawn = 0  # requests since the rollout began
            self.do(self.shop.store.open())
            self.do(self.shop.open())
            self.task = loop.create_task(self.shop.journal.run())
            self.start(2)

        def do(self, work: Any) -> Any:
            return loop.run_until_complete(work)

        def teardown(self) -> None:
            self.task.cancel()
            self.do(self.shop.store.close())

        @rule(number=numbers)
        def start(self, number: int) -> None:
            try:
                self.do(self.shop.rollouts.start(OPERATOR, self.shop.releases[number], "poc"))
                self.drawn = 0
            except Conflict:
                stable = self.do(self.shop.route())["stable"]
                assert number == stable or self.latest()["state"] not in ENDS

        @rule(order=orders)
        def order(self, order: Order) -> None:
            before = self.latest()
            try:
                self.do(self.shop.rollouts.order(OPERATOR, "shop", "poc", order))
            except (Conflict, NotFound):
                assert self.latest() == before
            else:
                assert before is not None and before["state"] not in ENDS

        @rule(number=numbers)
        def promote(self, number: int) -> None:
            before = self.latest()
            self.do(self.shop.routes.promote(OPERATOR, self.shop.releases[number], "poc"))
            assert self.do(self.shop.route())["stable"] == number
            if before is not None and before["state"] not in ENDS:
                ends = {before["stable"]: before["state"], before["release"]: "promoted"}
                assert self.latest()["state"] == ends.get(number, "aborted")

        @rule(to=st.sampled_from([None, 1, 2, 3]))
        def roll_back(self, to: int | None) -> None:
            before = self.latest()
            try:
                back = self.do(self.shop.routes.roll_back(OPERATOR, "shop", "poc", to, self.shop.releases))
            except Conflict:
                assert self.latest() == before
            else:
                assert self.do(self.shop.route())["stable"] == back.number
                assert before is None or before["state"] in ENDS or self.latest()["state"] == "rolled_back"

        @rule(count=st.sampled_from([5, 40, 100]), broken=st.booleans(), controllers=st.sampled_from([1, 1, 2, 3]))
        def serve(self, count: int, broken: bool, controllers: int) -> None:
            self.drawn += self.do(self.shop.serve(count, broken, self.chance))
            self.tick(controllers)

        @rule(controllers=st.sampled_from([1, 2]))
        def tick(self, controllers: int) -> None:
            before = self.latest()
            self.do(together([self.shop.rollouts] * controllers))
            if before is not None and before["state"] not in ENDS:
                counted = sum(arm["calls"] for arm in self.latest()["progress"]["total"].values())
                assert counted == self.drawn  # each of them once

        @rule()
        def killed(self) -> None:
            mortal = Rollouts(self.shop.store, Mortal(self.shop.store, self.shop.gate), self.shop.directory)
            before = self.do(self.shop.state())
            try:
                self.do(mortal.tick(SYSTEM))
            except Killed:
                assert self.do(self.shop.state()) == before

        def latest(self) -> Any:
            rows = self.do(self.shop.all("select * from proveout.rollouts order by started desc limit 1"))
            return rows[0] if rows else None

        @invariant()
        def the_route_is_the_rollouts(self) -> None:
            rows = self.do(self.shop.all("select * from proveout.rollouts where ended is null"))
            route = self.do(self.shop.route())
            told = (route["candidate"], route["rollout"], route["weight"], route["salt"] is not None)
            assert [told] == [(r["release"], r["id"], r["weight"], True) for r in rows] or (
                not rows and told == (None, None, 0, False)
            )
            assert all(row["state"] not in ENDS and row["stable"] == route["stable"] for row in rows)
            for row in self.do(self.shop.all(DECIDED)):
                assert row["count"] == row["max"]
                assert row["state"] not in ENDS or row["last"] == row["state"]

    return Orders


def test_whatever_happens_everything_is_done_once(dsn: str) -> None:
    loop = asyncio.new_event_loop()
    try:
        run_state_machine_as_test(
            machine(dsn, loop),
            settings=settings(
                max_examples=4, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
    finally:
        loop.close()
