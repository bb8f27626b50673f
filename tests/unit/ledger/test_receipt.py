"""Receipts and what their entries commit to."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proveout.errors import InvalidInput
from proveout.ledger import leaf
from proveout.ledger.receipt import LARGEST, encode_receipt
from proveout.ledger.verify import Receipt, Rejected, check_opening
from tlog import POLICY, Log, entries

RECORD = {"request": "req_1", "subject": "s-7", "tokens": 12, "cost_usd": 0.000123, "documents": ["a", "b"], "ü": None}
SALT = bytes(range(32))
WHEN = datetime(2026, 11, 22, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=1)))
ENTRY = leaf.entry("request:chat:completed", "acme", WHEN, leaf.commit(RECORD, SALT))


def test_a_leaf_says_only_what_is_public() -> None:
    assert json.loads(ENTRY) == {
        "commitment": base64.b64encode(hashlib.sha256(SALT + leaf.canonical(RECORD)).digest()).decode(),
        "kind": "request:chat:completed",
        "schema": 1,
        "time": "2026-11-22T11:30:15.123Z",
        "workspace": "acme",
    }
    assert leaf.canonical(json.loads(ENTRY)) == ENTRY and len(ENTRY) < 200


def test_canonical_json_is_that_of_rfc_8785() -> None:
    """Its sorting example (by UTF-16 code units) and its numbers."""
    names = {
        "€": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew",
        "1": "One",
        "😀": "Emoji",
        "\x80": "Control",
    }
    assert list(json.loads(leaf.canonical(names))) == ["\r", "1", "\x80", "€", "😀", "\ufb33"]
    numbers = {"numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001, -0.0]}
    assert leaf.canonical(numbers) == b'{"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27,0]}'
    assert leaf.canonical({"s": '€$\u000f\nA\'B"\\\\"/'}).decode() == '{"s":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'


@pytest.mark.parametrize("value", [float("nan"), 2**60, "\ud800", b"bytes", {1: 2}, datetime.now(UTC)])
def test_what_has_no_canonical_form_is_not_recorded(value: object) -> None:
    with pytest.raises(InvalidInput, match="cannot be recorded"):
        leaf.commit({"value": value}, SALT)


def test_wrong_kinds_times_and_salts() -> None:
    for kind in ("request", "a:b", "a:b:c:d", "A:b:c", "a:b:c\n", ":b:c"):
        with pytest.raises(InvalidInput):
            leaf.entry(kind, "acme", WHEN, "")
    with pytest.raises(InvalidInput):
        leaf.entry("a:b:c", "acme", WHEN.replace(tzinfo=None), "")
    with pytest.raises(InvalidInput):
        leaf.commit(RECORD, b"short")
    assert leaf.new_salt() != leaf.new_salt() and len(leaf.new_salt()) == 32


def test_an_opening_shows_what_was_committed_to() -> None:
    shown = leaf.opening(MappingProxyType(RECORD), SALT)
    assert json.loads(check_opening(ENTRY, shown)) == RECORD
    for wrong in (
        leaf.opening({**RECORD, "tokens": 13}, SALT),
        leaf.opening(RECORD, bytes(32)),
        json.dumps({"record": leaf.canonical(RECORD).decode(), "salt": ""}).encode(),
        json.dumps({"record": RECORD, "salt": base64.b64encode(SALT).decode()}).encode(),
        b"[]",
        b"{}",
        b"\xff",
        b"",
    ):
        with pytest.raises(Rejected):
            check_opening(ENTRY, wrong)
    for entry in (b"{}", b"[]", b"1", b"\xff", ENTRY.replace(b'"commitment":"', b'"commitment":"A')):
        with pytest.raises(Rejected):
            check_opening(entry, shown)


def test_salt_and_record_cannot_be_shifted_into_each_other() -> None:
    moved = {"record": leaf.canonical(RECORD).decode()[1:], "salt": base64.b64encode(SALT + b"{").decode()}
    with pytest.raises(Rejected):
        check_opening(ENTRY, json.dumps(moved).encode())


MADE = Log()
MADE.append([*entries(700), ENTRY, *entries(20)])
RECEIPT = encode_receipt(MADE.receipt(700))


def test_a_receipt_goes_round_and_verifies_offline() -> None:
    receipt = Receipt.parse(RECEIPT)
    assert receipt == MADE.receipt(700) and encode_receipt(receipt) == RECEIPT
    checkpoint, seen = receipt.check(POLICY)
    assert (checkpoint.size, list(seen)) == (721, ["witness.example/w1"])
    assert receipt.check(POLICY, ENTRY)[0] == checkpoint
    with pytest.raises(Rejected):
        receipt.check(POLICY, ENTRY + b" ")
    only = Log()
    only.append([ENTRY])
    assert Receipt.parse(encode_receipt(only.receipt(0))).check(POLICY)[0].size == 1


def test_a_receipt_is_small() -> None:
    """Twenty hashes (a million entries), three witnesses, the entry itself."""
    line = "— witness.example/a-rather-long-name " + base64.b64encode(bytes(76)).decode() + "\n"
    note = MADE.files["checkpoint"] + (line * 2).encode()
    assert len(encode_receipt(Receipt(700_000, (bytes(32),) * 20, note, ENTRY))) < LARGEST * 2 / 3
    with pytest.raises(InvalidInput, match="at most 4096"):
        encode_receipt(Receipt(0, (), note, bytes(3000)))


@pytest.mark.parametrize(
    ("old", "new", "problem", "place"),
    [
        (b"proof@v1", b"proof@v2", "first line", b"c2sp"),
        (b"index 700", b"index 0700", "not a size or an index", b"index"),
        (b"index 700", b"index -1", "not a size or an index", b"index"),
        (b"index 700", b"place 700", "here must stand the index", b"place"),
        (b"extra ", b"extra !", "not base64", b"extra"),
        (b"index 700", b"index 699", "another root", None),
        (b"index 700", b"index 721", "not in a tree of 721", None),
    ],
)
def test_what_is_wrong_is_said(old: bytes, new: bytes, problem: str, place: bytes | None) -> None:
    assert RECEIPT.count(old) == 1
    wrong = RECEIPT.replace(old, new)
    with pytest.raises(Rejected, match=problem) as error:
        Receipt.parse(wrong).check(POLICY)
    assert place is None or error.value.finding.offset == wrong.index(place)


def test_a_wrong_signature_is_said_where_it_stands_in_the_checkpoint() -> None:
    with pytest.raises(Rejected, match="the signature of log") as error:
        Receipt.parse(RECEIPT.replace(b"\n721\n", b"\n722\n")).check(POLICY)
    finding = error.value.finding
    assert finding.path == "checkpoint" and finding.offset == MADE.files["checkpoint"].index("—".encode())


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_no_changed_receipt_is_accepted(data: st.DataObject) -> None:
    receipt = bytearray(RECEIPT)
    place = data.draw(st.integers(0, len(receipt) - 1))
    how = data.draw(st.sampled_from(("change", "delete", "insert", "line")))
    if how == "change":
        receipt[place] ^= data.draw(st.integers(1, 255))
    elif how == "delete":
        del receipt[place]
    elif how == "insert":
        receipt.insert(place, data.draw(st.integers(0, 255)))
    else:
        lines = RECEIPT.splitlines(keepends=True)
        at = data.draw(st.integers(0, len(lines) - 1))
        if data.draw(st.booleans()):
            lines.insert(at, lines[at])
        else:
            del lines[at]
        receipt = bytearray(b"".join(lines))
    try:
        parsed = Receipt.parse(bytes(receipt))
        said = parsed.check(POLICY)
    except Rejected:
        return
    # A signature may stand there twice: then the receipt says what it said.
    assert (parsed.index, parsed.extra, said) == (700, ENTRY, MADE.receipt(700).check(POLICY)) and how == "line"
