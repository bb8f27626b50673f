"""What was decided on a request's way: the `decision` of its completion, which the log commits to with the rest.

No content: chunks by id, and commitments that nobody can open or guess at once the subject is erased, for their salt is
made of the subject's key.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from proveout.domain import Message, ToolCallPiece, Verdict

SCHEMA = 2
"""Of a completion. 1 had no decision."""


class Check(msgspec.Struct, frozen=True):
    """A guard's verdict without the places in the text: `reason` is the guard's code or fixed sentence."""

    guard: str
    action: str
    reason: str
    score: float

    @classmethod
    def of(cls, verdict: Verdict) -> Check:
        return cls(verdict.guard, verdict.action, verdict.reason, round(verdict.score, 6))


class Retrieval(msgspec.Struct, frozen=True):
    """What was found, best first, in which snapshots, and under which rights.

    `epoch` is the version of the configuration that the rights came from, `readers` the commitment to the reader marks
    of the caller; `answerable` the chance that the passages answer the question, None where it was not asked.
    """

    snapshots: Mapping[str, str]  # of each base
    chunks: Sequence[tuple[str, float]]
    epoch: int
    readers: str
    answerable: float | None
    ms: float  # since the request was admitted


ToolFault = Literal["unknown", "json", "schema"]
"""Why a call cannot be carried out: no such tool was offered, no valid JSON, not of the tool's schema."""


class ToolUse(msgspec.Struct, frozen=True):
    """A call of a tool that the model asked for; `arguments` is the commitment to them as the model wrote them.

    `fault` is told of whole answers; None: nothing is wrong.
    """

    name: str
    arguments: str
    fault: ToolFault | None = None


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """`input` and `output` are commitments to what was asked and answered, so that a sealed payload proves to be it.

    The last five are room: filled by who knows them.
    """

    input: str
    output: str
    captured: bool  # the content was kept, sealed
    retrieval: Retrieval | None = None
    verdicts: Sequence[Check] = ()
    tools: Sequence[ToolUse] = ()
    replays: str | None = None  # the request that this one repeats
    destination: str | None = None
    energy_wh: float | None = None
    policy: str | None = None
    business_outcome: str | None = None
    reviewer: str | None = None


def commit(salt: bytes, value: object) -> str:
    """`SHA-256(salt ‖ JSON)` in base64; the JSON is compact UTF-8 with sorted keys."""
    return base64.b64encode(hashlib.sha256(salt + msgspec.json.encode(value, order="sorted")).digest()).decode()


def commit_input(salt: bytes, messages: Sequence[Message], options: Mapping[str, object]) -> str:
    """The commitment to what was asked."""
    return commit(salt, {"messages": messages, "options": options})


def commit_output(salt: bytes, text: str, calls: Sequence[ToolCallPiece]) -> str:
    """The commitment to what was answered."""
    return commit(salt, {"text": text, "tools": [[name, arguments] for name, arguments in tools(calls)]})


def tools(calls: Sequence[ToolCallPiece]) -> list[tuple[str, str]]:
    """The calls that these pieces make up: name and arguments."""
    whole: dict[int, tuple[str, str]] = {}
    for piece in calls:
        name, arguments = whole.get(piece.index, ("", ""))
        whole[piece.index] = (name or piece.name or "", arguments + piece.arguments)
    return [whole[index] for index in sorted(whole)]
