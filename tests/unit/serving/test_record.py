import asyncio
from typing import Any
from unittest.mock import AsyncMock, MagicMock

from proveout.domain import Key, Message, ModelUse, Outcome, Principal, Usage
from proveout.serving.call import Answer, Asked, Call
from proveout.serving.record import record_completion


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
        caller = Principal(Key("k", "k", "default", "user"), frozenset())
        asked = Asked("echo", (Message("user", "?"),))
        call = Call("req_1", caller, asked, streamed=True, models=(ModelUse("echo", "sha256:0"),))
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
