"""Scorers that come with an app: Python of its developers, run in a confined process of its own.

In the app's folder, one file. Every public function of it with the arguments `(case, delivered)` is a scorer; both are
plain dicts as in JSON. It answers with a number from 0 to 1 (higher is better), True or False, or None.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from proveout.errors import InvalidInput
from proveout.evals.cases import Case
from proveout.evals.scorers.delivered import Better, Delivered, Kind

SECONDS = 5.0  # that one call may take
_CHILD = Path(__file__).with_name("confined_child.py")


class ScorerFailed(InvalidInput):
    """An app's own scorer failed; the message has its file and line."""


def custom_scorers(code: str, file: str) -> dict[str, Kind]:
    """The scorers that a file declares, by name, read without running it: `-> bool` makes one `binary`.

    Raises InvalidInput for a file that is not Python or declares none, or one that is `async`.
    """
    try:
        tree = ast.parse(code, file)
    except (SyntaxError, ValueError) as error:
        raise InvalidInput(f"{file}:{getattr(error, 'lineno', None) or 1}: {error}") from error
    found: dict[str, Kind] = {}
    for node in tree.body:
        if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_"):
            raise InvalidInput(
                f"{file}:{node.lineno}: {node.name}: a scorer computes and waits for nothing: write `def`, not `async "
                "def`"
            )
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            if [argument.arg for argument in node.args.args] != ["case", "delivered"]:
                raise InvalidInput(
                    f"{file}:{node.lineno}: {node.name}: a scorer takes (case, delivered); begin the name of any other "
                    "function with an underscore"
                )
            returns = ast.unparse(node.returns) if node.returns else ""
            found[node.name] = "binary" if returns in ("bool", "bool | None") else "unit"
    if not found:
        raise InvalidInput(f"{file}:1: declares no scorer: write a function with the arguments (case, delivered)")
    return found


class Confined:
    """A confined process that runs one file's scorers: `async with Confined(code, file) as child`.

    A call that takes longer than `seconds` ends the process; the next call starts another.
    """

    def __init__(self, code: str, file: str, seconds: float = SECONDS) -> None:
        self.file = file
        self._code = code
        self._first = json.dumps({"code": code, "file": file}) + "\n"
        self._seconds = seconds
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    def scorers(self) -> list[Custom]:
        """The file's scorers. Raises InvalidInput as `custom_scorers` does; starts no process."""
        return [Custom(name, kind, self) for name, kind in custom_scorers(self._code, self.file).items()]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def call(self, name: str, case: Mapping[str, Any], delivered: Mapping[str, Any]) -> float | None:
        """One score from 0 to 1, or None. Raises ScorerFailed when the function fails, takes too long or answers with
        anything else."""
        line = json.dumps({"name": name, "case": case, "delivered": delivered}) + "\n"
        async with self._turn:
            try:
                async with asyncio.timeout(self._seconds):
                    told = await self._exchange(line)
            except TimeoutError:
                await self._end()
                raise ScorerFailed(f"{self.file}: {name}: took longer than {self._seconds:g} s") from None
            except asyncio.CancelledError:
                await self._end()  # its answer would be taken for that to the next call
                raise
            if "error" in told:
                await self._end()
        if "error" in told:
            raise ScorerFailed(f"{name}: {told['error']}")
        score = told.get("score")
        if score is None:
            return None
        if not isinstance(score, bool | int | float) or not 0 <= score <= 1:
            raise ScorerFailed(f"{self.file}: {name}: answered {score!r}, which is no number from 0 to 1, nor None")
        return float(score)

    async def _exchange(self, line: str) -> dict[str, Any]:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-X", "utf8", str(_CHILD)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,
            )
            line = self._first + line
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(line.encode())
            await self._process.stdin.drain()
            told = json.loads(await self._process.stdout.readline())
        except (ConnectionError, ValueError):  # ValueError: no JSON, or more of it than an answer has
            told = None
        return told if isinstance(told, dict) else {"error": f"{self.file}: its process ended without an answer"}

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # `process.kill` reaps, and asyncio's watcher then misses it
        await process.wait()


@dataclass(frozen=True, slots=True)
class Custom:
    """One function of an app's file, as a scorer."""

    name: str
    kind: Kind
    child: Confined
    better: Better = "higher"

    async def score(self, case: Case, delivered: Delivered) -> float | None:
        try:
            return await self.child.call(self.name, msgspec.to_builtins(case), msgspec.to_builtins(delivered))
        except ScorerFailed as error:
            raise ScorerFailed(f"{error.message} (case {case.id})") from error
