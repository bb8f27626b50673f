"""What was decided, and the commitments that prove a sealed payload to be the one."""

from __future__ import annotations

import msgspec

from proveout.domain import Message, ToolCallPiece, Verdict
from proveout.ledger.decision import Check, Decision, Retrieval, commit, commit_input, commit_output, tools
from proveout.ledger.leaf import canonical

SALT, OTHER = bytes(32), b"\x01" * 32
ASKED = (Message("user", "How many days?"),)


def test_a_commitment_is_to_all_of_what_was_asked_and_to_nothing_else() -> None:
    first = commit_input(SALT, ASKED, {"a": 1, "b": 2})
    assert first == commit_input(SALT, ASKED, {"b": 2, "a": 1})
    others = [
        commit_input(OTHER, ASKED, {"a": 1, "b": 2}),
        commit_input(SALT, ASKED, {"a": 1, "b": 3}),
        commit_input(SALT, (Message("user", "How many days"),), {"a": 1, "b": 2}),
        commit_input(SALT, (Message("system", "How many days?"),), {"a": 1, "b": 2}),
    ]
    assert len({first, *others}) == 5
    assert len(first) == 44  # SHA-256 in base64
    assert commit(SALT, "x") == "PFSG8LvKjbuhE4Fp7pHVHMbgbv39lgRMLgXEP/7maNQ="  # computed with openssl


def test_an_output_is_its_text_and_its_whole_calls() -> None:
    pieces = [
        ToolCallPiece(1, "{}", "b", "stop"),
        ToolCallPiece(0, '{"city":', "a", "weather"),
        ToolCallPiece(0, '"Leeds"}'),
    ]
    assert tools(pieces) == [("weather", '{"city":"Leeds"}'), ("stop", "{}")]
    whole = [ToolCallPiece(0, '{"city":"Leeds"}', "a", "weather"), ToolCallPiece(1, "{}", "b", "stop")]
    assert commit_output(SALT, "", pieces) == commit_output(SALT, "", whole)  # however it was cut
    assert commit_output(SALT, "", pieces) != commit_output(SALT, "", whole[:1])
    assert commit_output(SALT, "", []) != commit_output(SALT, " ", [])


def test_a_decision_is_small_holds_no_place_in_the_text_and_can_be_recorded() -> None:
    verdict = Verdict("groundedness", "flag", "no source supports this sentence", 1 / 3, ((3, 9),))
    found = Retrieval({"kb": "sha256:1"}, [("7", 0.5)], 3, "r", None, 1.5)
    decision = Decision("i", "o", captured=True, retrieval=found, verdicts=(Check.of(verdict),))
    written = msgspec.json.decode(msgspec.json.encode(decision))
    assert set(written) == {"input", "output", "captured", "retrieval", "verdicts"}  # room takes none
    assert written["verdicts"] == [
        {"guard": "groundedness", "action": "flag", "reason": "no source supports this sentence", "score": 0.333333}
    ]
    assert canonical({"decision": written})
    spooled = msgspec.msgpack.decode(msgspec.msgpack.encode(decision), type=Decision)
    assert msgspec.json.encode(spooled) == msgspec.json.encode(decision)
