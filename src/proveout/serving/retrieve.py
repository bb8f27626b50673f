"""Stage: what the sources say on the question, as far as the caller may read them."""

from __future__ import annotations

from dataclasses import replace

from proveout.domain import Passage
from proveout.guard.answerable import THRESHOLD, answerable, features
from proveout.retrieval.cite import quotes, weigh
from proveout.serving.call import Call, Rooms

ANSWER_WORDS = 120  # an answer is filled with quotes up to this length


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
    passages = tuple(found)
    call.progress.retrieved_ms = call.progress.elapsed_ms
    call = replace(call, passages=passages, snapshots=snapshots, epoch=epoch)  # what the record tells of it
    weighed = await weigh(call.asked.question, passages, rooms.match)
    if not weighed.units:
        return replace(call, answerable=False)
    read = weighed.units[int(weighed.chances.argmax())].passage
    signs = features(call.asked.question, passages, read, weighed.matches, weighed.chances)
    best = tuple(quotes(weighed, passages, ANSWER_WORDS))
    chance = answerable(signs)
    return replace(call, quotes=best, answerable=chance >= THRESHOLD, chance=chance)
