"""What a run may spend."""

from __future__ import annotations

import asyncio

import pytest

from proveout.evals.runner import Purse


@pytest.mark.parametrize(
    ("budget", "costs", "spent"),
    [
        (0.3, [0.11] * 20, 0.22),  # a third one would be too dear
        (0.33, [0.11] * 20, 0.33),
        (1.0, [0.0] * 20, 0.0),
        (0.05, [0.11] * 20, 0.11),  # of the first nobody knows before
        (None, [0.11] * 20, 2.2),
        (0.0, [0.11], 0.0),
    ],
)
def test_a_budget_holds_however_many_ask_at_once(budget: float | None, costs: list[float], spent: float) -> None:
    purse, todo = Purse(budget), iter(costs)

    async def client() -> None:
        for cost in todo:
            if not await purse.take():
                return
            await asyncio.sleep(0.001)
            await purse.pay(cost)

    async def work() -> None:
        await asyncio.wait_for(asyncio.gather(*(client() for _ in range(8))), 5)

    asyncio.run(work())
    assert purse.spent == pytest.approx(spent)
