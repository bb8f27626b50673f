"""Collecting cosignatures: witnesses are shown the newest checkpoint of a workspace's log (C2SP tlog-witness).

Beside the integrator and never in its way: it signs on while a witness thinks, or is away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from proveout import configfile
from proveout.domain import Scope
from proveout.ledger.integrate import read_tiles
from proveout.ledger.note import add_cosignatures
from proveout.ledger.receipt import encode_request
from proveout.ledger.tree import consistency_spans, hashes, tiles_for
from proveout.ledger.verify import Rejected, VerifierKey, number
from proveout.store.pool import Store

log = logging.getLogger(__name__)

_ANSWER_SECONDS = 3.0
_LEAST_SILENCE, _MOST_SILENCE = 1.0, 30.0  # seconds
_LARGEST_ANSWER = 16 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class _Witness:
    key: VerifierKey
    url: str

    @property
    def name(self) -> str:
        return self.key.name


@dataclass(frozen=True, slots=True)
class _Silence:
    """A witness that does not cosign is not asked again until then; each time it is left alone for twice as long."""

    seconds: float
    until: float


class _Refusal(Exception):
    """The witness is there, and does not cosign the log of this workspace."""


class Cosigner:
    """Asks the configured witnesses, and nobody else, and keeps what they sign."""

    def __init__(self, store: Store, witnesses: Iterable[configfile.Witness]) -> None:
        self._store = store
        self._witnesses = [_Witness(VerifierKey.parse(given.key), given.url) for given in witnesses]
        self._silent: dict[tuple[str, str], _Silence] = {}
        self._opened: aiohttp.ClientSession | None = None

    async def collect(self, scope: Scope) -> int:
        """Shows the newest checkpoint to the witnesses that have not cosigned it; answers with how many now did.

        All are asked at once and awaited, at most a few seconds, so that one note carries what all of them say.
        """
        async with self._store.within(scope) as session:
            row = await session.row("log.checkpoint")
            seen = {known["name"]: known["size"] for known in await session.fetch("witnesses.sizes")}
        if row is None:
            return 0
        size, note = row["size"], bytes(row["note"])
        asked = [w for w in self._witnesses if seen.get(w.name) != size and not self._is_silent(w, scope.workspace)]
        answers = await asyncio.gather(*[self._ask(scope, w, seen.get(w.name, 0), size, note) for w in asked])
        lines = {witness: answer for witness, answer in zip(asked, answers, strict=True) if answer is not None}
        if lines:
            await self._keep(scope, size, note, lines)
        return len(lines)

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    async def _ask(self, scope: Scope, witness: _Witness, old: int, size: int, note: bytes) -> bytes | None:
        """The witness's valid cosignature of the checkpoint, or None when there is none now."""
        itself, here = (witness.name, ""), (witness.name, scope.workspace)
        try:
            answer = await self._cosignature(scope, witness, old if old <= size else 0, size, note)
        except _Refusal as refusal:
            self._spoke(itself)
            self._fell_silent(here, f"does not cosign the log of {scope.workspace}: {refusal}")
        except (aiohttp.ClientError, TimeoutError, Rejected) as error:
            self._fell_silent(itself, f"does not answer: {str(error) or type(error).__name__}")
        else:
            self._spoke(itself)
            self._spoke(here)
            return answer
        return None

    async def _cosignature(self, scope: Scope, witness: _Witness, old: int, size: int, note: bytes) -> bytes | None:
        status, body = await self._post(witness, encode_request(old, await self._proof(scope, old, size), note))
        if status == 409:
            last = _stated_size(body)
            if last > size:
                if last <= await self._size(scope):
                    return None  # another worker has shown it a newer one meanwhile
                raise _Refusal(f"it has seen {last} entries, the log has {size}")
            status, body = await self._post(witness, encode_request(last, await self._proof(scope, last, size), note))
            if status == 409 and _stated_size(body) != last:
                return None  # another worker asks it at this moment
        if status >= 500:
            raise Rejected(f"status {status}")
        if status != 200:
            raise _Refusal(f"status {status}, {body[:200]!r}")
        add_cosignatures(note, body, witness.key)  # nothing is kept that does not verify
        return body

    async def _post(self, witness: _Witness, request: bytes) -> tuple[int, bytes]:
        if self._opened is None:
            self._opened = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS))
        async with self._opened.post(f"{witness.url}/add-checkpoint", data=request, allow_redirects=False) as answer:
            body = bytearray()
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > _LARGEST_ANSWER:
                    raise Rejected("its answer is too large")
            return answer.status, bytes(body)

    async def _proof(self, scope: Scope, old: int, size: int) -> Sequence[bytes]:
        spans = consistency_spans(old, size)
        if not spans:
            return ()
        async with self._store.within(scope) as session:
            read = await read_tiles(session, list(tiles_for(spans, size)))
        try:
            return hashes(read, spans, size)
        except (FileNotFoundError, Rejected) as error:
            raise _Refusal(f"no proof from {old} to {size} can be made: {error}") from error

    async def _size(self, scope: Scope) -> int:
        async with self._store.within(scope) as session:
            row = await session.row("log.checkpoint")
        return 0 if row is None else int(row["size"])

    async def _keep(self, scope: Scope, size: int, note: bytes, lines: Mapping[_Witness, bytes]) -> None:
        async with self._store.within(scope) as session:
            row = await session.row("log.checkpoint_held")
            if row is not None and row["witnessed_size"] == size:
                note = bytes(row["witnessed_note"])  # another worker's answers are added to
            for witness, answer in lines.items():
                note = add_cosignatures(note, answer, witness.key)
                await session.run("witnesses.saw", name=witness.name, size=size)
            await session.run("log.cosign", size=size, note=note)

    def _is_silent(self, witness: _Witness, workspace: str) -> bool:
        now = asyncio.get_running_loop().time()
        kept = (self._silent.get((witness.name, about)) for about in ("", workspace))
        return any(silence is not None and now < silence.until for silence in kept)

    def _spoke(self, about: tuple[str, str]) -> None:
        if self._silent.pop(about, None) is not None:
            log.warning("the witness %s answers again", about[0])

    def _fell_silent(self, about: tuple[str, str], why: str) -> None:
        before = self._silent.get(about)
        if before is None:
            log.warning("the witness %s %s", about[0], why)
        seconds = _LEAST_SILENCE if before is None else min(before.seconds * 2, _MOST_SILENCE)
        self._silent[about] = _Silence(seconds, asyncio.get_running_loop().time() + seconds)


def _stated_size(conflict: bytes) -> int:
    """The size that a witness says to have cosigned last. Raises Rejected."""
    return number(conflict.decode(errors="replace").removesuffix("\n"))
