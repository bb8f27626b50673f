import asyncio
from typing import Any
from unittest.mock import AsyncMock, MagicMock

from proveout.domain import Key, Message, ModelUse, Outcome, Principal, Usage
from proveout.errors import Unavailable
from proveout.serving.call import Answer, Asked, Call
from proveout.serving.record import record_completion


def a_call() -> Call:
    caller = Principal(Key("k", "k", "default", "user"), frozenset())
    asked = Asked("echo", (Message("user", "?"),))
    return Call("req_1", caller, asked, streamed=True, models=(ModelUse("echo", "sha256:0"),))


def test_a_client_that_leaves_while_its_end_is_being_recorded_leaves_one_completion() -> None:
    """Whatever is awaited before the journal: the pipeline records a cancelled call once more, and one must arrive."""

    async def scenario() -> list[Outcome]:
        written: list[Outcome] = []
        sealing = asyncio.Event()

        async def seal(*_: Any) -> bytes:
            await sealing.wait()
            return b""

        async def write(entry: Any) -> None:
            written.append(entry.outcome)

        rooms = MagicMock()
        rooms.payloads.seal, rooms.payloads.subject, rooms.journal.write = seal, AsyncMock(return_value="s"), write
        rooms.payloads.salt = AsyncMock(return_value=bytes(32))
        call = a_call()
        answering = asyncio.create_task(
            record_completion(call, rooms, Outcome.ANSWERED, answer=Answer("stop", Usage(1, 1)))
        )
        await asyncio.sleep(0.01)
        answering.cancel()
        await asyncio.wait({answering}, timeout=0.01)
        sealing.set()
        await record_completion(call, rooms, Outcome.CANCELLED)
        await asyncio.sleep(0.01)
        return written

    assert len(asyncio.run(scenario())) == 1


def test_an_answer_on_record_is_told_though_the_database_went_away_since() -> None:
    """Whoever has taken the answer closes the pipeline, which records the end of the call once more: it has one."""

    async def scenario() -> None:
        rooms, call = MagicMock(), a_call()
        rooms.payloads.seal = rooms.payloads.salt = AsyncMock(return_value=bytes(32))
        rooms.payloads.subject = AsyncMock(side_effect=["s", Unavailable()])
        rooms.journal.write = AsyncMock()
        await record_completion(call, rooms, Outcome.ANSWERED, answer=Answer("stop", Usage(1, 1)))
        await record_completion(call, rooms, Outcome.CANCELLED)
        assert rooms.journal.write.await_count == 1

    asyncio.run(scenario())
