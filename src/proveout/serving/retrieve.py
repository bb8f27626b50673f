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
    for use in call.release.manifest.knowledge:
        found += await rooms.searcher.search(call.principal.scope, use, call.asked.question)
    found.sort(key=lambda passage: -passage.score)
    passages = tuple(found)
    found_quotes = tuple(await quotes(call.asked.question, passages, rooms.embed))
    if not found_quotes:
        return replace(call, passages=passages, answerable=False)
    chance = await answerable(call.asked.question, passages, found_quotes, rooms.match)
    return replace(call, passages=passages, quotes=found_quotes, answerable=chance >= THRESHOLD)
