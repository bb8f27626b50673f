"""kill -9, twenty times each: `make soak`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from conftest import Scripted
from kills import BACK_SECONDS, BACK_SECONDS_ALL, CLIENTS, EVERYTHING, VICTIMS, Kills, strike, strike_everything
from pages import Page

PAGE, TITLE = "kills.md", f"kill -9 under {CLIENTS} clients"
ROUNDS = 20
HEAD = """\
| victim | kills | whole answers | others (503 or cut) | back after, s | discrepancies |
|---|---|---|---|---|---|
"""


def test_kills(scripted: Scripted, tmp_path: Path, page: Page) -> None:
    found = {victim: Kills() for victim in VICTIMS}
    for _ in range(ROUNDS):
        for victim, kills in asyncio.run(strike(scripted, VICTIMS)).items():
            found[victim].extend(kills)
    found[EVERYTHING] = strike_everything(tmp_path / "data", ROUNDS)
    rows = [kills.row(victim) for victim, kills in found.items()]
    page.add(
        "Streamed and whole requests without a pause; the victims are killed in turns, in the middle of them. After "
        "each kill the clients', the upstream's and our own records are compared. `everything` is the supervisor and "
        "all below it; it is back when `up`, started again on the same data folder, says so."
    )
    page.add(HEAD + "\n".join(rows))
    page.add(
        "What is killed again within ten seconds waits for the supervisor's back-off, at most 0.5 s. While Postgres "
        "restarts, requests wait for it."
    )
    for victim, kills in found.items():
        assert kills.discrepancies == [], kills.discrepancies[:5]
        assert max(kills.back) <= (BACK_SECONDS_ALL if victim == EVERYTHING else BACK_SECONDS), victim
