"""Parses documents in a process of its own, with bounds on time and memory: files may be hostile."""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
from multiprocessing.connection import Connection

from proveout.errors import InvalidInput
from proveout.retrieval.chunk import Chunk, chunks
from proveout.retrieval.parse import parse

_SECONDS = 60.0
_BYTES = 2 * 2**30


class Reader:
    """Reads documents one at a time. A document that breaks the process costs only itself."""

    def __init__(self) -> None:
        self._child: tuple[multiprocessing.process.BaseProcess, Connection] | None = None

    async def read(self, name: str, data: bytes) -> tuple[str, str, list[Chunk]]:
        """The title, the text and the chunks of a document. Raises InvalidInput, saying how to mend it."""
        if self._child is None:
            self._child = await asyncio.to_thread(_start)
        line = self._child[1]
        try:
            line.send((name, data))
            if not await asyncio.to_thread(line.poll, _SECONDS):
                self.close()
                raise InvalidInput(f"{name}: reading takes longer than {_SECONDS:.0f} s; split the file")
            answer = line.recv()
        except (EOFError, OSError):
            self.close()
            raise InvalidInput(f"{name}: the file cannot be read without harm; save it anew or remove it") from None
        if isinstance(answer, str):
            raise InvalidInput(answer)
        title, text, pieces = answer
        return title, text, pieces

    def close(self) -> None:
        """Ends the process."""
        if self._child is not None:
            process, line = self._child
            self._child = None
            process.kill()
            process.join()
            line.close()


def _start() -> tuple[multiprocessing.process.BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")  # a fork after a model was loaded would hang
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _serve(line: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
    while True:
        try:
            name, data = line.recv()
        except EOFError:
            return
        try:
            parsed = parse(name, data)
            line.send((parsed.title, parsed.text, chunks(parsed)))
        except InvalidInput as error:
            line.send(error.message)
        except (MemoryError, RecursionError):
            line.send(f"{name}: the file needs too much memory to read; split it")
