"""The three ledgers: what the clients saw, what the upstream did, what our records say. They must not disagree.

`collect` reads our records of what the clients saw; `compare` puts every discrepancy into words.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from proveout.testing.client import Client, Seen
from proveout.testing.upstream import Entry

GRACE = 0.25  # seconds between a client's leaving and the upstream's hearing of it
_TAG = re.compile(r"\btag=([\w-]+)")
_WHOLE = ("answered", "refused")
_BROKEN = ("truncated", "failed")

Record = Mapping[str, Any]
"""One row of `GET /api/v1/requests`."""


async def collect(client: Client, seen: Sequence[Seen], within: float = 5.0) -> list[Record]:
    """Our records of these requests: those that the clients know by id, and, of the newest 1,000, those that only name
    a client's tag (of clients that left before they were told the id).

    Waits until each has ended, at most `within` seconds: a client that left is recorded just after.
    """
    tags = {s.tag for s in seen}
    deadline = time.monotonic() + within
    found: dict[str, Record] = {}
    waiting = {s.request for s in seen if s.request}
    while waiting:
        rows = await asyncio.gather(*(client.record(request) for request in waiting))
        found |= {row["request"]: row for row in rows if row is not None}
        waiting = {number for number in waiting if number not in found or found[number]["outcome"] is None}
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.05)
    others = [row for row in await client.newest() if row["request"] not in found]
    every = [*found.values(), *(row for row in others if _tag_in(row["model"]) in tags)]
    # `unknown` says that the process died: as much as an intent without a completion
    return [{**row, "outcome": None} if row["outcome"] == "unknown" else row for row in every]


async def settled(calls: Callable[[], Iterable[Entry]], within: float = 5.0) -> bool:
    """Whether the upstream had ended every call, waiting at most `within` seconds for it."""
    deadline = time.monotonic() + within
    while running := any(call.state == "running" for call in calls()):
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.01)
    return not running


def compare(
    seen: Sequence[Seen], calls: Sequence[Entry], records: Sequence[Record], *, killed: bool = False
) -> list[str]:
    """Every discrepancy between the three ledgers, in words; empty when they agree.

    Clients and records meet by the request's id; both meet the upstream by the tag, so each request needs a tag of
    its own. With `killed`, our own processes died meanwhile: connections may break without a terminal event and
    intents may stay open; nothing else is forgiven.
    """
    by_id = {record["request"]: record for record in records}
    by_tag: dict[str, list[Entry]] = defaultdict(list)
    for call in calls:
        by_tag[call.tag].append(call)
    tags = {s.request: s.tag for s in seen if s.request}
    found: list[str] = []
    for request, times in Counter(record["request"] for record in records).items():
        if times > 1:
            found.append(f"{request}: recorded {times} times")
    for tag, times in Counter(call.tag for call in calls).items():
        if times > 1:
            found.append(f"tag {tag}: the upstream was called {times} times for one request")
    for s in seen:
        record = by_id.get(s.request or "")
        name = f"{s.request or 'no id'} (tag {s.tag})"
        found += [f"{name}: {words}" for words in _client_and_record(s, record, killed)]
        if record is None or record["app"] is None:
            found += [f"{name}: {words}" for words in _client_and_upstream(s, by_tag.get(s.tag, []))]
    for record in records:
        tag = tags.get(record["request"]) or _tag_in(record["model"])
        words = _record_and_upstream(record, by_tag.get(tag, []), killed)
        found += [f"{record['request']} (tag {tag}): {w}" for w in words]
    intents = {tags.get(record["request"]) or _tag_in(record["model"]) for record in records}
    found += [f"tag {tag}: the upstream was called without an intent" for tag in sorted(by_tag.keys() - intents)]
    return found


def _client_and_record(seen: Seen, record: Record | None, killed: bool) -> Iterator[str]:
    if seen.ending in ("confused", "silent") or (seen.ending == "cut" and not killed):
        yield f"the client was given no honest ending: {seen.ending}"
    if seen.first_byte is not None and seen.request is None:
        yield f"an answer of status {seen.status} without a request id"
    if record is None:
        if seen.status == 200:
            yield "a first byte without an intent"
        return
    outcome = record["outcome"]
    if outcome is None:
        if seen.ending in ("whole", "error", "refused"):
            yield f"a terminal event ({seen.ending}) without a completion"
        elif not killed:
            yield f"never completed on record, though the client's end was: {seen.ending}"
        return
    expected = {"whole": _WHOLE, "error": _BROKEN, "refused": _BROKEN, "left": ("cancelled", *_WHOLE, *_BROKEN)}
    if outcome not in expected.get(seen.ending, (outcome,)):
        code = f" ({seen.error})" if seen.error else ""
        yield f"the client saw {seen.ending}{code}, the record says {outcome}"
    if record["app"] is None and outcome not in _WHOLE and seen.pieces > record["completion_tokens"]:
        yield f"the client got {seen.pieces} pieces, the record counts {record['completion_tokens']} tokens"


def _client_and_upstream(seen: Seen, calls: Sequence[Entry]) -> Iterator[str]:
    """For direct models, where what the upstream says is what the client gets."""
    if seen.ending == "whole" and not any(call.state == "finished" for call in calls):
        yield f"an invented ending: {seen.finish!r} and [DONE], the upstream: {_states(calls)}"
    if calls and not any(call.text.startswith(seen.text) for call in calls):
        yield f"invented text: {seen.text[-40:]!r} is not what the upstream wrote"
    if seen.ending == "whole" and calls and seen.text not in [call.text for call in calls]:
        yield f"a whole answer that lacks text: {len(seen.text)} of {len(calls[0].text)} characters"


def _record_and_upstream(record: Record, calls: Sequence[Entry], killed: bool) -> Iterator[str]:
    outcome, counted = record["outcome"], record["completion_tokens"]
    if outcome is None:
        return
    if outcome == "answered" and record["app"] is None and not any(call.state == "finished" for call in calls):
        yield f"answered on record, the upstream: {_states(calls)}"
    if counted > sum(call.tokens for call in calls):
        yield f"{counted} tokens on record, the upstream produced {sum(call.tokens for call in calls)}"
    for call in calls:
        if call.state == "running" and not killed:
            yield f"{outcome} on record, and the upstream still works"
        elif outcome == "cancelled" and call.ended is not None and counted < call.tokens_until(call.ended - GRACE):
            before = call.tokens_until(call.ended - GRACE)
            yield f"{counted} tokens on record, {before} were produced {GRACE * 1000:.0f} ms before the end"


def _states(calls: Sequence[Entry]) -> str:
    return ", ".join(f"{call.state} after {call.tokens} tokens" for call in calls) or "was never called"


def _tag_in(model: str) -> str:
    found = _TAG.search(model)
    return found[1] if found else ""
