"""A worse release under load, fifty times: each time it goes back to the very same release, at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from conftest import Scripted
from pages import Page
from rolling import APP, ask_until_it_ends, call, release_all

PAGE, TITLE = "rollbacks.md", "Rollbacks under load"
ROUNDS = 50
SECONDS = 2.0  # from the verdict to the last request that the candidate gets


def test_rollbacks(scripted: Scripted, app_folder: Callable[..., Path], page: Page) -> None:
    server = scripted.server
    release_all(server, "mart", app_folder, APP.replace("kiosk", "mart"), ["honest", "liar"])
    (digest,) = (one["digest"] for one in call(server, "/apps/mart/releases")[1]["releases"] if one["stages"])
    late: list[float] = []
    asked, taken = 0, list[int]()
    for _ in range(ROUNDS):
        assert call(server, "/apps/mart/stages/poc/rollout", {"action": "start", "release": 2})[0] == 200
        seen, told = asyncio.run(ask_until_it_ends(server, "mart", 60))
        assert told["state"] == "rolled_back" and {status for status, _ in seen} == {200}, (seen, told["guardrails"])
        stable = [one for one in call(server, "/apps/mart/releases")[1]["releases"] if one["stages"]]
        assert [(one["number"], one["digest"]) for one in stable] == [(1, digest)]
        (last,) = call(server, "/requests?app=mart&release=2&limit=1")[1]["requests"]
        verdict = datetime.fromisoformat(told["decisions"][0]["at"])
        late.append((datetime.fromisoformat(last["begun"]) - verdict).total_seconds())
        asked, taken = asked + seen.total(), [*taken, told["exposure"]["candidate"]]
    page.add(
        f"{ROUNDS} rollouts of a release of which half the answers are unsupported, {asked:,} requests of four "
        f"clients at once: each was rolled back by itself after {min(taken)} to {max(taken)} calls of the candidate, "
        "every request answered 200 with a whole answer, and the stable release had the same digest. The last request "
        f"of the candidate began at most {max(late):.3f} s after the verdict (aim: {SECONDS:g} s)."
    )
    assert max(late) <= SECONDS
