"""Stage: what the sources say on the question, as far as the caller may read them."""

from __future__ import annotations

from dataclasses import replace

from proveout.domain import Passage
from proveout.guard.answerable import THRESHOLD, answerable
from proveout.retrieval.cite import quotes
from proveout.serving.call import Call, Rooms


async def retrieve(call: Call, rooms: Rooms) -> Call:
    """Adds the passages, the best quotes and whether they answer the question at all."""
    if call.release is None or not call.has_knowledge:
        return call
    found: list[Passage] = []
    snapshots: dict[str, str] = {}
    epoch = rooms.directory().version
    for use in call.release.manifest.knowledge:
        pinned = await rooms.searcher.pinned(call.principal.scope, use)
        snapshots[use.name] = pinned.snapshot
        found += await rooms.searcher.search(call.principal.scope, pinned, call.asked.question)
    found.sort(key=lambda passage: -passage.score)
    call.progress.retrieved_ms = call.progress.elapsed_ms
    call = replace(call, passages=tuple(found), snapshots=snapshots, epoch=epoch)
    found_quotes = tuple(await quotes(call.asked.question, call.passages, rooms.embed))
    if not found_quotes:
        return replace(call, answerable=False)
    chance = await answerable(call.asked.question, call.passages, found_quotes, rooms.match)
    return replace(call, quotes=found_quotes, answerable=chance >= THRESHOLD, chance=chance)
