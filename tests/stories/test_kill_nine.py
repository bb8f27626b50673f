"""kill -9 of any process, and of all, under load: service is back soon, and nothing that was answered is missing.

Twenty kills of each, and how soon service is back, are a matter of `make soak`: here it may be a slow machine.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from conftest import Scripted
from kills import BACK_SECONDS, BACK_SECONDS_ALL, CLIENTS, EVERYTHING, VICTIMS, strike, strike_everything

ROUNDS, ROUNDS_ALL = 5, 3  # as many as a minute holds


def test_kill_nine_of_one_process(scripted: Scripted) -> None:
    for _ in range(ROUNDS):  # in turns: what is killed again within seconds comes back later
        for victim, kills in asyncio.run(strike(scripted, VICTIMS)).items():
            print(kills.row(victim))
            assert kills.discrepancies == []
            assert kills.whole > CLIENTS and max(kills.back) <= 4 * BACK_SECONDS


def test_kill_nine_of_everything(tmp_path: Path) -> None:
    kills = strike_everything(tmp_path / "data", ROUNDS_ALL)
    print(kills.row(EVERYTHING))
    assert kills.discrepancies == []
    assert kills.whole > CLIENTS * ROUNDS_ALL and max(kills.back) <= 4 * BACK_SECONDS_ALL
