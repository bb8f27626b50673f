"""How commands speak."""

from __future__ import annotations

import time

import pytest

from proveout.edge.cli import output


def test_off_a_terminal_each_phase_begins_with_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter((1000.0, 1029.0, 1031.0, 1032.0, 1033.0, 1034.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(moments))
    with output.progress_bar() as progress:
        for done, what in (
            (0, "asking a@2"),
            (9, "asking a@2, 0.0001 USD"),
            (12, "asking a@2, 0.0002 USD"),
            (1, "asking a@1"),
            (1, "3 documents read, 0.1 USD"),
            (1, "4 documents read, 0.1 USD"),
        ):
            progress(done, 40, what)
    assert capsys.readouterr().err.splitlines() == [
        "asking a@2: 0 of 40",
        "asking a@2, 0.0002 USD: 12 of 40",
        "asking a@1: 1 of 40",
        "3 documents read, 0.1 USD: 1 of 40",
    ]
