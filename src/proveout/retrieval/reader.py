"""Parses documents in a process of its own, with bounds on time and memory: files may be hostile."""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import subprocess
import sys
from multiprocessing.connection import Connection

from proveout.errors import InvalidInput
from proveout.retrieval.chunk import Chunk, chunks
from proveout.retrieval.parse import Parsed, parse

_SECONDS = 60.0
_BYTES = 2 * 2**30


class Reader:
    """Reads documents one at a time. A document that breaks the process costs only itself."""

    def __init__(self) -> None:
        self._child: tuple[subprocess.Popen[bytes], Connection] | None = None
        self._turn = asyncio.Lock()

    async def read(self, name: str, data: bytes) -> tuple[Parsed, list[Chunk]]:
        """A document in the format of its name's suffix, and its chunks. Raises InvalidInput: how to mend it."""
        async with self._turn:
            return await self._read(name, data)

    async def _read(self, name: str, data: bytes) -> tuple[Parsed, list[Chunk]]:
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
        parsed, pieces = answer
        return parsed, pieces

    def close(self) -> None:
        """Ends the process."""
        if self._child is not None:
            process, line = self._child
            self._child = None
            process.kill()
            process.wait()
            line.close()


def _start() -> tuple[subprocess.Popen[bytes], Connection]:
    """Not multiprocessing's own start, which would import all that the parent's main module does: seconds of it."""
    ours, theirs = multiprocessing.Pipe()
    command = [sys.executable, "-m", __name__, str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()
    return process, ours


def _serve(line: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
    while True:
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime + _SECONDS) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))  # should the parent be gone
        try:
            name, data = line.recv()
        except EOFError:
            return
        try:
            parsed = parse(name, data)
            line.send((parsed, chunks(parsed)))
        except InvalidInput as error:
            line.send(error.message)
        except (MemoryError, RecursionError):
            line.send(f"{name}: the file needs too much memory to read; split it")


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
