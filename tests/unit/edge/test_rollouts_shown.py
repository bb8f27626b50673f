"""How the evidence of a rollout is drawn, on a page and in a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proveout.edge.cli import main, rollout
from proveout.edge.cli.client import Refused
from proveout.edge.cli.rollout import bar, path_of_rollout, sparkline
from proveout.edge.console.rollouts import evidence, shown_share
from proveout.errors import InvalidInput, NotFound, Unavailable
from proveout.releases.simulate import End, Traffic


def test_the_threshold_and_the_evidence_share_one_log_axis() -> None:
    chart = evidence([-5.0, 0.0, 2.0, 9.0], 100)
    assert chart.path == f"M0 100L10 {71.43:g}L20 {chart.threshold:g}L30 0"
    assert (round(chart.top), chart.bottom, chart.width) == (316, 0.1, 30)
    assert evidence([], 100).path == "M0 71.43"


def test_a_sparkline_is_full_where_a_candidate_is_rolled_back() -> None:
    assert sparkline([-3.0, 0.0, 1.0, 2.0, 7.0]) == "▁▁▄██"
    assert sparkline([]) == "" and len(sparkline([0.0] * 500)) == 40


def test_a_bar_is_full_where_enough_is_shown() -> None:
    assert (bar(1, 100), bar(10, 100), bar(1e9, 100)) == ("╌" * 20, "━" * 10 + "╌" * 10, "━" * 20)
    assert [shown_share(value, 100) for value in (0.0, 1.0, 10.0, 1e15)] == [0, 0, 0.5, 1]


def test_both_arms_have_their_outcomes_beside_each_other() -> None:
    counts = {"calls": 4, "answered": 4, "events": {"errors": 1}, "scores": {}, "measured": {}}
    outcomes = {"candidate": {"minutes": {"mean": 1234.5, "count": 3}}, "stable": {}}
    told = list(rollout._arms({"arms": {"candidate": counts, "stable": counts}, "outcomes": outcomes}))
    assert [one["outcomes"] for one in told] == [["minutes 1,234 (of 3)"], []]
    assert told[0]["bad events"] == ["errors 1 (25 %)"]


def test_a_simulated_rollout_that_did_not_end_is_undecided() -> None:
    ends = [End("running", "", 100, 5), End("running", "", 100, 7), End("rolled_back", "", 40, 3)]
    told = rollout._forecast("none", ends, Traffic(per_second=1 / 36))
    assert rollout._told(told["ends"]) == "undecided 2, rolled back 1"
    assert (told["requests"], told["candidate_requests"], told["hours"]) == (100, 5, 1)


class Server:
    """Has rollouts of the app desk, by stage: state, when it started."""

    def __init__(self, **rollouts: tuple[str, str]) -> None:
        self.rollouts = rollouts

    async def call(self, _: str, path: str) -> Any:
        if path == "/api/v1/apps":
            return {"apps": [{"app": "desk", "stages": {"poc": 3, "beta": 2, "production": 1}}]}
        stage = path.split("/")[-2]
        if stage not in self.rollouts:
            raise Refused(404, "There was none.")
        state, started = self.rollouts[stage]
        return {"stage": stage, "state": state, "started": started}


@pytest.mark.parametrize(
    ("rollouts", "stage"),
    [
        ({"poc": ("running", "2026-01-01"), "production": ("promoted", "2026-02-01")}, "poc"),
        ({"beta": ("frozen", "2026-01-01")}, "beta"),
        ({"poc": ("aborted", "2026-02-01"), "production": ("promoted", "2026-01-01")}, "poc"),
    ],
)
def test_without_a_stage_it_is_the_rollout_that_runs_or_the_latest(rollouts: Any, stage: str) -> None:
    found = asyncio.run(path_of_rollout(Server(**rollouts), "desk", ""))  # type: ignore[arg-type]
    assert found == f"/api/v1/apps/desk/stages/{stage}/rollout"


def test_a_rollout_that_is_not_clear_is_not_guessed() -> None:
    both = Server(beta=("running", "2026-01-01"), production=("paused", "2026-01-02"))
    with pytest.raises(InvalidInput, match="beta and production: say --stage"):
        asyncio.run(path_of_rollout(both, "desk", ""))  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="no rollout of desk"):
        asyncio.run(path_of_rollout(Server(), "desk", ""))  # type: ignore[arg-type]


class Follower(Server):
    """A rollout of which each look sees the next state; an error is raised."""

    url = "http://127.0.0.1:1"

    def __init__(self, *seen: str | Exception) -> None:
        super().__init__(poc=("running", "2026-01-01"))
        self.seen = list(seen)

    async def call(self, method: str, path: str) -> Any:
        if not path.endswith("poc/rollout") or not self.seen:
            return await super().call(method, path)
        state = self.seen.pop(0) if len(self.seen) > 1 else self.seen[0]
        if isinstance(state, Exception):
            raise state
        about = {"app": "desk", "release": 2, "stable": 1, "stage": "poc", "step": 0, "weight": 0.5, "decisions": []}
        calls = {"candidate": 1, "stable": 1}
        return {**about, "state": state, "started": "2026-01-01", "exposure": calls}


AWAY = Unavailable("The server does not answer.")


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (("running", "running", "promoted"), 0),
        (("running", "running", AWAY, Refused(503, "Not ready."), "rolled_back"), 1),
        (("running", "running", "aborted"), 3),
        (("running", "running", AWAY), 2),
        ((AWAY,), 2),
        (("running", "running", Refused(500, "A bug.")), 2),
        (("running", "running", Refused(401, "The key was revoked.")), 2),
        ((Refused(404, "There was none."),), 2),
    ],
)
def test_what_following_ends_with_says_how_it_ended_or_that_it_is_not_known(
    seen: tuple[str | Exception, ...], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def connected() -> AsyncIterator[Any]:
        yield Follower(*seen)

    monkeypatch.setattr(rollout, "connected", connected)
    monkeypatch.setattr(rollout, "_say", lambda *_: None)
    monkeypatch.setattr(rollout, "_FOLLOW_SECONDS", 0.001)
    monkeypatch.setattr(rollout, "_AWAY_SECONDS", 0.05)
    monkeypatch.setattr("sys.argv", ["proveout", "rollout", "status", "desk", "--stage", "poc", "--follow"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == code


def test_what_is_not_there_is_wrong_input_whoever_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def connected() -> AsyncIterator[Any]:
        yield Server()

    monkeypatch.setattr(rollout, "connected", connected)
    for more in ([], ["--follow"]):
        monkeypatch.setattr("sys.argv", ["proveout", "rollout", "status", "desk", *more])
        with pytest.raises(SystemExit) as ended:
            main.main()
        assert ended.value.code == 2
