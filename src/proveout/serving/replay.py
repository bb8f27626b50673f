"""Asking a recorded request again: of the same release, with its seed and its sealed input; and what differs.

The recorded snapshots are searched, by who asked then as far as the one who asks now could be them. The replay is a
request of its own, of the purpose `replay`, and holds the data of the same subject.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from proveout.domain import KnowledgeUse, Parameters, Principal, Right, Text, ToolCallPiece
from proveout.errors import Conflict, InvalidInput
from proveout.ledger.decision import commit, commit_input, commit_output, tools
from proveout.ledger.journal import new_request_id
from proveout.ledger.payloads import Payload
from proveout.serving import pipeline
from proveout.serving.call import Answer, Asked, Call, Rooms
from proveout.serving.record import record_intent
from proveout.serving.resolve import resolve
from proveout.store.pool import Row

PURPOSE = "replay"
_CLOSE = 1e-3  # between scores that are the same: a batch of another size rounds otherwise


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing, as it was recorded and as it is now."""

    recorded: Any
    replayed: Any


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of a replay. `differs` is empty when it is identical; `diff` is the unified diff of the answers.

    `proven`: the sealed content is what the record commits to; None for a record without a commitment.
    """

    request: str
    replays: str
    identical: bool
    proven: bool | None
    answer: str
    differs: Mapping[str, Difference] = field(default_factory=dict)
    diff: str = ""


@dataclass(frozen=True, slots=True)
class _End:
    text: str
    calls: list[ToolCallPiece]
    answer: Answer


async def replay(number: str, caller: Principal, rooms: Rooms) -> Replay:
    """Raises NotFound for a request, release or app that is not the caller's; Conflict when the content is no more."""
    row = await rooms.journal.get(caller.scope, number)
    payload, salt = await rooms.payloads.open(caller.scope, number, caller.key.id)
    if payload.embed:
        raise InvalidInput(f"{number} asked for vectors: they are not kept, so there is nothing to compare.")
    proven = _proven(row, payload, salt)
    if proven is False:
        raise Conflict(f"The sealed content of {number} is not what its record commits to.")
    call = await resolve(_call(row, payload, caller), rooms)
    call = await record_intent(_pinned(call, row), rooms)
    end = await _answered(call, rooms)
    differs = _differences(row, payload, call, end, salt)
    lines = difflib.unified_diff(
        payload.answer.splitlines(), end.text.splitlines(), "recorded", "replayed", lineterm=""
    )
    return Replay(call.request, number, not differs, proven, end.text, differs, "\n".join(lines))


def _proven(row: Row, payload: Payload, salt: bytes) -> bool | None:
    decision = row["decision"]
    if decision is None:
        return None
    asked = commit_input(salt, payload.messages, payload.options)
    answered = commit_output(salt, payload.answer, payload.tool_calls)
    return bool(decision["input"] == asked and decision["output"] == answered)


def _call(row: Row, payload: Payload, caller: Principal) -> Call:
    """The call, before it is resolved. The effective parameters are given as the caller's own, so none is derived."""
    then: dict[str, Any] = row["parameters"]
    asked = Asked(
        model=f"{row['app']}@{row['release']}" if row["app"] else row["model"],
        messages=tuple(payload.messages),
        temperature=then["temperature"],
        max_tokens=then["max_tokens"],
        top_p=then["top_p"],
        seed=then["seed"],
        stop=tuple(then["stop"]),
        options=payload.options,
        bounds_thoughts=payload.bounds_thoughts,
    )
    return Call(
        request=new_request_id(),
        principal=_asker(payload, caller),
        asked=asked,
        streamed=False,
        purpose=PURPOSE,
        replays=row["request"],
        holder=payload.subject or None,
    )


def _asker(payload: Payload, caller: Principal) -> Principal:
    """The caller in the place of who asked. Whoever makes keys could be anyone; others keep to their own groups."""
    if not payload.subject:
        return caller
    if Right.KEYS_MANAGE in caller.rights:
        key = replace(caller.key, name=payload.reader, groups=frozenset(payload.groups))
    else:
        key = replace(caller.key, groups=caller.key.groups.intersection(payload.groups))
    return replace(caller, key=key)


def _pinned(call: Call, row: Row) -> Call:
    """The call in the stage, the arm and the snapshots of then; with the parameters of then, and nothing else's."""
    call = replace(
        call, stage=row["stage"], arm=row["arm"], weight=row["weight"], parameters=_parameters(row["parameters"])
    )
    found = (row["decision"] or {}).get("retrieval")
    if call.release is None or found is None:
        return call
    uses = tuple(_at(use, found["snapshots"]) for use in call.release.manifest.knowledge)
    return replace(call, release=replace(call.release, manifest=replace(call.release.manifest, knowledge=uses)))


def _parameters(then: Mapping[str, Any]) -> Parameters:
    return Parameters(**{**then, "stop": tuple(then["stop"])})


def _at(use: KnowledgeUse, snapshots: Mapping[str, str]) -> KnowledgeUse:
    return replace(use, snapshot=snapshots.get(use.name, use.snapshot))


async def _answered(call: Call, rooms: Rooms) -> _End:
    text, calls = "", list[ToolCallPiece]()
    async with aclosing(pipeline.answer(call, rooms)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Answer):
                return _End(text, calls, piece)
            if isinstance(piece, Text):
                text += piece.text
            else:
                calls.append(piece)
    raise AssertionError("an answer always ends in an Answer")


def _differences(row: Row, payload: Payload, call: Call, end: _End, salt: bytes) -> dict[str, Difference]:
    decision = row["decision"] or {}
    pairs = {
        "outcome": (row["outcome"], str(end.answer.outcome)),
        "answer": (payload.answer, end.text),
        "tools": (tools(payload.tool_calls), tools(end.calls)),
        "prompt_tokens": (row["prompt_tokens"], end.answer.usage.prompt_tokens),
        "completion_tokens": (row["completion_tokens"], end.answer.usage.completion_tokens),
        "model": (row["answered_by"], call.progress.model or call.models[0].name),
        "served_by": (row["served_by"], end.answer.served_by),
    }
    if decision:
        then = [[v["guard"], v["action"], v["reason"], v["score"]] for v in decision.get("verdicts", [])]
        said = (*call.progress.withheld, *end.answer.verdicts)
        pairs["verdicts"] = (then, _settled(then, [[v.guard, v.action, v.reason, v.score] for v in said]))
    if found := decision.get("retrieval"):
        same = found["readers"] == commit(salt, call.principal.scope.readers)
        pairs["readers"] = ("as recorded", "as recorded" if same else "fewer or others")
        pairs["passages"] = (
            found["chunks"],
            _settled(found["chunks"], [[p.chunk, p.score] for p in end.answer.passages]),
        )
    return {name: Difference(*pair) for name, pair in pairs.items() if pair[0] != pair[1]}


def _settled(recorded: Sequence[Sequence[Any]], replayed: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """What was replayed, with the recorded score (the last of each) where both are the same but for rounding."""
    settled = [[*one[:-1], round(one[-1], 6)] for one in replayed]
    for then, now in zip(recorded, settled, strict=False):
        if abs(then[-1] - now[-1]) <= _CLOSE:
            now[-1] = then[-1]
    return settled
