"""The example's golden questions, asked of the real model by the command that users have."""

from __future__ import annotations

import json

from conftest import Server


def test_the_golden_questions_reach_their_marks(server: Server) -> None:
    done = server.cli("eval", "run", "helpdesk@1", "--json")
    assert done.returncode in (0, 3), done.stderr  # another processor may answer a few questions otherwise
    summary = json.loads(done.stdout)["summary"]
    scores = summary["scores"]
    assert summary["verdict"] != "fail"
    # Floors under what is measured; the aims (0.95, 0.75, 0.9) and what stands between are in LOG.md.
    assert scores["retrieval"]["mean"] >= 0.92
    assert scores["facts"]["mean"] >= 0.71
    assert scores["refusal"]["mean"] >= 0.77
    assert scores["restricted"]["mean"] == 1.0
    assert scores["unsupported"]["mean"] <= 0.01
