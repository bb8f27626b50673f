"""kill -9 of the generator and the embedder under load, again and again, and how soon they are back."""

from __future__ import annotations

import asyncio

from conftest import Server
from model_kills import VICTIMS, strike_model

KILLS = 20
BACK_SECONDS = 5.0


def test_model_processes_are_back_within_seconds_each_time(server: Server) -> None:
    for victim in VICTIMS:
        back = sorted(asyncio.run(strike_model(server, victim, "local/smollm2-135m-instruct")) for _ in range(KILLS))
        print(
            f"{victim}: {KILLS} kills, back after {back[0]:.1f}-{back[-1]:.1f} s, half within {back[KILLS // 2]:.1f} s"
        )
        assert back[-1] <= BACK_SECONDS, victim
