"""Keys and sessions: what opens, what does not, and that both failures look alike."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proveout.access import keys, sessions
from proveout.access.rights import ROLES
from proveout.domain import Directory, Key, Right
from proveout.errors import NotFound, Unauthenticated

KEY = Key("key_1", "service", "default", "user", apps=frozenset({"helpdesk"}), models=frozenset({"echo"}))
TEXT = keys.new_key_text()
DIRECTORY = Directory(1, {keys.digest(TEXT): KEY}, {}, {}, session_secret=b"s" * 32)


def test_a_key_opens_with_the_rights_of_its_role() -> None:
    caller = keys.authenticate(DIRECTORY, TEXT)
    assert caller.key is KEY and caller.rights == ROLES["user"]
    assert caller.may_ask("helpdesk") and not caller.may_ask("other")
    assert caller.may_call("echo") and not caller.may_call("local/smollm2-135m-instruct")
    keys.require(caller, Right.APPS_ASK)
    with pytest.raises(NotFound):
        keys.require(caller, Right.KEYS_MANAGE)


@pytest.mark.parametrize("text", [None, "", "po_wrong", TEXT[:-1], TEXT + "x", TEXT.upper()])
def test_no_wrong_and_near_keys_are_refused_alike(text: str | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        keys.authenticate(DIRECTORY, text)
    assert caught.value.message == Unauthenticated().message


def test_key_texts_are_long_and_never_the_same() -> None:
    assert len({keys.new_key_text() for _ in range(100)}) == 100
    assert len(TEXT) >= 43  # 256 bits


def test_a_session_opens_until_it_ends() -> None:
    text = sessions.sign(DIRECTORY, KEY.id, now=1000)
    assert sessions.open_session(DIRECTORY, text, now=1001).key is KEY
    with pytest.raises(Unauthenticated):
        sessions.open_session(DIRECTORY, text, now=1000 + sessions.HOURS * 3600)


def test_a_session_ends_with_its_key_and_with_the_secret() -> None:
    text = sessions.sign(DIRECTORY, KEY.id)
    for changed in (dataclasses.replace(DIRECTORY, keys={}), dataclasses.replace(DIRECTORY, session_secret=b"t" * 32)):
        with pytest.raises(Unauthenticated):
            sessions.open_session(changed, text)


@given(st.text(max_size=80), st.integers(0, 60))
def test_forged_sessions_are_refused(text: str, position: int) -> None:
    good = sessions.sign(DIRECTORY, KEY.id, now=0)
    mutated = good[:position] + ("0" if good[position] != "0" else "1") + good[position + 1 :]
    for forged in (text, mutated):
        with pytest.raises(Unauthenticated):
            sessions.open_session(DIRECTORY, forged, now=1)
