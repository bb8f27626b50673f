"""The pipeline: the stages of one request, in order. To add a stage, write its file and name it here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from proveout.domain import Outcome
from proveout.errors import ProveoutError, Truncated
from proveout.serving.call import Answer, Call, Piece, Prepare, Rooms
from proveout.serving.compose import compose
from proveout.serving.deliver import deliver
from proveout.serving.record import record_completion, record_intent
from proveout.serving.resolve import resolve
from proveout.serving.retrieve import retrieve

ADMIT: tuple[Prepare, ...] = (resolve, record_intent)
"""A refusal here leaves no record: nothing was begun."""

PREPARE: tuple[Prepare, ...] = (retrieve, compose)
"""From here on, every end is recorded."""


async def admit(call: Call, rooms: Rooms) -> Call:
    """Resolves and records the intent; the call that comes back must be given to `answer`."""
    for stage in ADMIT:
        call = await stage(call, rooms)
    return call


async def answer(call: Call, rooms: Rooms) -> AsyncGenerator[Piece, None]:
    """Yields the pieces of an admitted call's answer: texts, then one Answer, already on record.

    Every way out leaves exactly one completion: the end, an error, a cancelled task, a closed generator.
    """
    try:
        for stage in PREPARE:
            call = await stage(call, rooms)
        async with aclosing(deliver(call, rooms)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Answer):
                    await record_completion(call, rooms, piece.outcome, answer=piece)
                else:
                    call.progress.release(piece)
                yield piece
    except Truncated as error:
        await record_completion(call, rooms, Outcome.TRUNCATED, error.message)
        raise
    except ProveoutError as error:
        await record_completion(call, rooms, Outcome.FAILED, error.message)
        raise
    except (asyncio.CancelledError, GeneratorExit):
        await asyncio.shield(record_completion(call, rooms, Outcome.CANCELLED))
        raise
    except Exception as error:
        await record_completion(call, rooms, Outcome.FAILED, f"internal error: {type(error).__name__}")
        raise
