"""What happened, line by line, for other systems: the log's records as JSON lines, requests as OTLP spans."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import msgspec

from proveout.domain import Outcome, Scope
from proveout.ledger import leaf, salts
from proveout.ledger.journal import Filter
from proveout.ledger.verify import leaf_hash
from proveout.store.events import Kind, note
from proveout.store.pool import Row, Store
from proveout.store.sealing import Keyring

_PAGE = 1_000
Line = Mapping[str, Any]


class Export:
    """What a filter lets through of a scope's workspace, oldest first, in pages: nothing is held as a whole."""

    def __init__(self, store: Store, keyring: Keyring, scope: Scope, which: Filter) -> None:
        self._store = store
        self._keyring = keyring
        self._scope = scope
        self._which = which

    async def note(self, by: str, form: str) -> None:
        """Notes that the key `by` exports this. Times and pseudonyms, no content."""
        asked = {name: value for name, value in asdict(self._which).items() if value is not None}
        async with self._store.within(self._scope) as session:
            about = {"format": form, "filter": msgspec.to_builtins(asked)}
            await note(session, self._scope.workspace, Kind.LOG_EXPORTED, by, about)

    async def records(self) -> AsyncIterator[Line]:
        """The log's records: where each stands, its entry, and what that commits to, unless it was erased.

        `leaf` is the hash that the tree has at `index`: SHA-256(0x00 ‖ entry), RFC 9162.
        """
        after = None
        while True:
            async with self._store.within(self._scope) as session:
                rows = await session.fetch("events.export", **asdict(self._which), after=after, limit=_PAGE)
                found = await salts.read(session, self._keyring, self._scope.workspace, rows)
            for row, salt in zip(rows, found, strict=True):
                yield _record(row, salt, self._scope.workspace)
            if len(rows) < _PAGE:
                return
            after = rows[-1]["position"]

    async def spans(self) -> AsyncIterator[Line]:
        """Ended requests as OTLP/JSON, one `ExportTraceServiceRequest` a line."""
        after = None
        while True:
            async with self._store.within(self._scope) as session:
                rows = await session.fetch("requests.export", **asdict(self._which), after=after, limit=_PAGE)
            for row in rows:
                yield _traces(row)
            if len(rows) < _PAGE:
                return
            after = rows[-1]["request"]


LINES: Mapping[str, Callable[[Export], AsyncIterator[Line]]] = {"jsonl": Export.records, "otel": Export.spans}


def _record(row: Row, salt: bytes | None, workspace: str) -> Line:
    entry = leaf.entry(row["kind"], workspace, row["at"], row["commitment"])
    return {
        "index": row["position"],
        "kind": row["kind"],
        "time": row["at"],
        "request": row["request"],
        "subject": row["subject"],
        "leaf": base64.b64encode(leaf_hash(entry)).decode(),
        "entry": entry.decode(),
        "record": row["record"],
        "salt": None if salt is None else base64.b64encode(salt).decode(),
    }


def _traces(row: Row) -> Line:
    scope = {"scope": {"name": "proveout"}, "spans": [span(row)]}
    return {"resourceSpans": [{"resource": {"attributes": _attributes({"service.name": "proveout"})},
                               "scopeSpans": [scope]}]}  # fmt: skip


def span(row: Row) -> Line:
    """One request as a span, by the GenAI semantic conventions; its ids are made of the request's.

    https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ and the OTLP file exporter's JSON lines.
    """
    began = _nanoseconds(row["begun"])
    decision = row["decision"] or {}
    digest = hashlib.sha256(row["request"].encode()).digest()
    failed = row["outcome"] in (Outcome.FAILED, Outcome.TRUNCATED)
    known = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": row["answered_by"].partition("/")[0],
        "gen_ai.request.model": row["model"],
        "gen_ai.response.model": row["served_by"] or row["answered_by"],
        **{f"gen_ai.request.{name}": row["parameters"].get(name)
           for name in ("max_tokens", "temperature", "top_p", "seed")},
        "gen_ai.usage.input_tokens": row["prompt_tokens"],
        "gen_ai.usage.output_tokens": row["completion_tokens"],
        "error.type": row["outcome"] if failed else None,
        **{f"proveout.{name}": row[name]
           for name in ("request", "app", "release", "release_digest", "stage", "arm", "weight", "purpose", "key",
                        "subject", "outcome", "grounded", "quoted", "cost_usd")},
        "proveout.chunks": [chunk for chunk, _ in decision.get("retrieval", {}).get("chunks", [])] or None,
    }  # fmt: skip
    events: list[tuple[str, float, Mapping[str, Any]]] = [
        (name, row[f"{column}_ms"], {}) for name, column in _MOMENTS if row[f"{column}_ms"] is not None
    ]
    events += [("verdict", row["total_ms"], {f"proveout.{name}": value for name, value in verdict.items()})
               for verdict in decision.get("verdicts", [])]  # fmt: skip
    return {
        "traceId": digest[:16].hex(),
        "spanId": digest[16:24].hex(),
        "name": f"chat {row['model']}",
        "kind": 3,  # a client's
        "startTimeUnixNano": str(began),
        "endTimeUnixNano": str(began + int(row["total_ms"] * 1e6)),
        "attributes": _attributes(known),
        "events": [{"timeUnixNano": str(began + int(ms * 1e6)), "name": name, "attributes": _attributes(about)}
                   for name, ms, about in events],
        "status": {"code": 2} if failed else {},
    }  # fmt: skip


_MOMENTS = (("first token", "first_token"), ("first text", "first_sentence"))


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items() if value is not None]


def _value(value: Any) -> dict[str, Any]:
    """OTLP's AnyValue; its JSON writes 64-bit numbers as text."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(one) for one in value]}}
    return {"stringValue": str(value)}


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1e6) * 1_000
