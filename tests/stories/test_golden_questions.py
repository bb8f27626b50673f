"""The example's golden questions, asked of the real model by the command that users have."""

from __future__ import annotations

import json

from conftest import Server


def test_the_golden_questions_reach_their_marks(server: Server) -> None:
    done = server.cli("eval", "run", "helpdesk@1", "--json")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)["summary"]["scores"]
    assert scores["retrieval"]["mean"] >= 0.90
    assert scores["facts"]["mean"] >= 0.70
    assert scores["refusal"]["mean"] >= 0.80  # 0.85 is the aim: LOG.md says what stands between
