"""The comparison finds every lie: each case spoils one of three ledgers that agree."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from proveout.testing.client import Seen
from proveout.testing.ledgers import compare
from proveout.testing.upstream import Entry

WRITTEN = [10.0, 10.1, 10.2, 10.3]
Ledgers = tuple[list[Seen], list[Entry], list[dict[str, Any]]]


def agreeing(ending: str, **record: Any) -> Ledgers:
    """Three ledgers of one request that agree."""
    whole = ending == "whole"
    text = "a b c d " if whole else "a b "
    seen = Seen("t", "up/tokens=4", 9.0, "req_1", 200, 10.0, 10.35, ending, len(text) // 2, text)  # type: ignore[arg-type]
    state = {"whole": "finished", "left": "cancelled"}.get(ending, "faulted")
    call = Entry(0, "t", "tokens=4", True, 9.5, 0, list(WRITTEN), "a b c d ", state, 10.4)  # type: ignore[arg-type]
    outcome = {"whole": "answered", "left": "cancelled"}.get(ending, "truncated")
    row = {"request": "req_1", "app": None, "model": "up/tokens=4", "outcome": outcome, "completion_tokens": 4}
    return [seen], [call], [row | record]


@pytest.mark.parametrize("ending", ["whole", "error", "refused", "left"])
def test_ledgers_that_agree(ending: str) -> None:
    assert compare(*agreeing(ending)) == []


def test_a_refusal_before_the_intent_needs_no_record() -> None:
    seen = replace(agreeing("refused")[0][0], status=404, text="", pieces=0)
    assert compare([seen], [], []) == []


def test_a_client_that_left_before_the_headers_is_found_by_its_tag() -> None:
    (seen,), calls, (row,) = agreeing("left")
    gone = replace(seen, request=None, status=None, first_byte=None, text="", pieces=0)
    row["model"] = "up/tokens=4&tag=t"
    assert compare([gone], calls, [row]) == []
    assert compare([gone], calls, []) == ["tag t: the upstream was called without an intent"]


Spoil = Callable[[Seen, Entry, dict[str, Any]], Ledgers]
LIES: list[tuple[str, str, Spoil]] = [
    ("whole", "a first byte without an intent", lambda s, c, r: ([s], [c], [])),
    ("whole", "called without an intent", lambda s, c, r: ([s], [c], [])),
    ("whole", "without a request id", lambda s, c, r: ([replace(s, request=None)], [c], [r])),
    ("whole", "terminal event (whole) without a completion", lambda s, c, r: ([s], [c], [r | {"outcome": None}])),
    ("error", "terminal event (error) without a completion", lambda s, c, r: ([s], [c], [r | {"outcome": None}])),
    ("left", "never completed on record", lambda s, c, r: ([s], [c], [r | {"outcome": None}])),
    ("whole", "saw whole, the record says truncated", lambda s, c, r: ([s], [c], [r | {"outcome": "truncated"}])),
    ("error", "saw error, the record says answered", lambda s, c, r: ([s], [c], [r | {"outcome": "answered"}])),
    ("whole", "recorded 2 times", lambda s, c, r: ([s], [c], [r, r])),
    ("whole", "called 2 times", lambda s, c, r: ([s], [c, msgspec.structs.replace(c, call=1)], [r])),
    (
        "whole",
        "5 tokens on record, the upstream produced 4",
        lambda s, c, r: ([s], [c], [r | {"completion_tokens": 5}]),
    ),
    ("left", "1 tokens on record, 2 were produced", lambda s, c, r: ([s], [c], [r | {"completion_tokens": 1}])),
    ("left", "got 2 pieces, the record counts 1", lambda s, c, r: ([s], [c], [r | {"completion_tokens": 1}])),
    ("whole", "an invented ending", lambda s, c, r: ([s], [msgspec.structs.replace(c, state="faulted")], [r])),
    ("whole", "was never called", lambda s, c, r: ([s], [], [r])),
    ("left", "answered on record", lambda s, c, r: ([s], [c], [r | {"outcome": "answered"}])),
    ("error", "invented text", lambda s, c, r: ([replace(s, text="a x ")], [c], [r])),
    ("whole", "lacks text", lambda s, c, r: ([replace(s, text="a b ")], [c], [r])),
    ("left", "the upstream still works", lambda s, c, r: ([s], [msgspec.structs.replace(c, state="running")], [r])),
    ("whole", "no honest ending: cut", lambda s, c, r: ([replace(s, ending="cut")], [c], [r])),
    ("whole", "no honest ending: confused", lambda s, c, r: ([replace(s, ending="confused")], [c], [r])),
]


@pytest.mark.parametrize(("ending", "words", "spoil"), LIES, ids=[f"{e}: {w}" for e, w, _ in LIES])
def test_every_lie_is_found(ending: str, words: str, spoil: Spoil) -> None:
    (seen,), (call,), (row,) = agreeing(ending)
    found = compare(*spoil(seen, call, row))
    assert any(words in line for line in found), found


def test_what_a_kill_excuses() -> None:
    (seen,), (call,), (row,) = agreeing("whole")
    cut, open_ = replace(seen, ending="cut"), row | {"outcome": None}
    assert compare([cut], [call], [open_], killed=True) == []
    assert compare([cut], [call], [], killed=True) != []
    assert compare([seen], [call], [open_], killed=True) != []
