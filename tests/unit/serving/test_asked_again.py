"""As whom a request is asked again, and when two scores are the same."""

from __future__ import annotations

import pytest

from proveout.domain import Key, Message, Principal, Right
from proveout.ledger.payloads import Payload
from proveout.serving.replay import _asker, _settled


def caller(*groups: str, manages: bool = False) -> Principal:
    key = Key("key_9", "operator", "default", "operator", frozenset(groups))
    return Principal(key, frozenset({Right.KEYS_MANAGE} if manages else ()))


@pytest.mark.parametrize(
    ("who", "name", "groups"),
    [
        (caller("hr", "board"), "operator", {"hr"}),  # not more than was seen then
        (caller("it"), "operator", set()),  # nor what the caller may not see
        (caller(manages=True), "anna", {"hr", "leeds"}),
    ],
)
def test_a_replay_sees_what_was_seen_then_as_far_as_the_caller_could(
    who: Principal, name: str, groups: set[str]
) -> None:
    payload = Payload((Message("user", "?"),), "", subject="user:anna", reader="anna", groups=("hr", "leeds"))
    asker = _asker(payload, who)
    assert (asker.key.name, set(asker.key.groups), asker.rights) == (name, groups, who.rights)
    assert asker.key.id == "key_9"  # who asks now is on record, whoever's eyes it has


def test_who_asked_before_that_was_kept_is_the_caller() -> None:
    assert _asker(Payload((Message("user", "?"),), ""), caller("hr")) == caller("hr")


def test_scores_that_differ_by_rounding_are_the_same() -> None:
    then = [["a", 0.5], ["b", 0.25]]
    assert _settled(then, [["a", 0.5004], ["b", 0.2500001]]) == then
    assert _settled(then, [["a", 0.51], ["b", 0.25]]) == [["a", 0.51], ["b", 0.25]]
    assert _settled(then, [["b", 0.5]]) != then
