"""Which arm of a stage's route a call goes to: pilots first, then a salted hash of whom it is for.

The same user always meets the same arm at the same weight, and keeps the candidate when its weight rises. A call that
names no user and no conversation is drawn for itself.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from proveout.domain import Candidate, Retired
from proveout.serving.assignments import Assignments, Drawn
from proveout.serving.call import Call

_DIGITS = 13  # hexadecimal, of a hash: 52 bits, which a float holds exactly


async def draw(call: Call, candidate: Candidate, assignments: Assignments) -> tuple[Drawn, str | None]:
    """The arm of a call, and the salted hash of whom it was drawn for; None: for the request alone."""
    asked = call.asked
    talk = _conversation(call, candidate.salt)
    unit = hashed(candidate.salt, f"user {asked.user}") if asked.user else talk
    if _is_pilot(call, candidate, unit):
        drawn = Drawn("candidate", None)
    else:
        place = chance(unit or hashed(candidate.salt, f"request {call.request}"))
        drawn = Drawn("candidate" if place < candidate.weight else "stable", candidate.weight)
    if talk is None:
        return drawn, unit
    # A conversation that is met in the middle began before the rollout: on the stable release.
    first = Drawn("stable", None) if asked.is_met else drawn
    return await assignments.keep(candidate.rollout, talk, first), unit


async def stays(call: Call, retired: Retired, assignments: Assignments) -> bool:
    """Whether a call goes on with a conversation that was on the release that a rollout has replaced since."""
    talk = _conversation(call, retired.salt)
    if talk is None or not call.asked.is_met or datetime.now(UTC) >= retired.until:
        return False
    kept = await assignments.kept(retired.rollout, talk)
    return kept is not None and kept.arm == "stable"


def _conversation(call: Call, salt: str) -> str | None:
    """The salted hash of a call's conversation: of this key and user, for others may number theirs alike."""
    asked = call.asked
    if not asked.conversation:
        return None
    return hashed(salt, f"conversation {call.principal.key.id} {asked.user or ''} {asked.conversation}")


def hashed(salt: str, name: str) -> str:
    """SHA-256 of a rollout's salt and a name, 64 bits in hexadecimal."""
    return hashlib.sha256(f"{salt} {name}".encode()).hexdigest()[:16]


def chance(unit: str) -> float:
    """Where a hash falls in [0, 1): below a candidate's weight, it is the candidate's."""
    return int(unit[:_DIGITS], 16) / 16.0**_DIGITS


def _is_pilot(call: Call, candidate: Candidate, unit: str | None) -> bool:
    pilots, key = candidate.pilots, call.principal.key
    if call.asked.user not in pilots.users and key.name not in pilots.users and key.groups.isdisjoint(pilots.groups):
        return False
    who = unit or hashed(candidate.salt, f"key {key.id}")
    return chance(hashed(candidate.salt, f"pilot {who}")) < pilots.share
