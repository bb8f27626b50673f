"""One request as a timeline: who asked, which release and why, what was found, checked and answered, and its receipt.

Nothing here shows what was asked or answered: that is sealed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from proveout.domain import Principal, Right
from proveout.edge.console import shell
from proveout.edge.console.operations import listed
from proveout.edge.http.requests import gateway
from proveout.edge.wiring import Gateway
from proveout.errors import NotFound, Unavailable
from proveout.ledger.decision import Decision
from proveout.ledger.journal import now
from proveout.ledger.verify import Policy, Receipt, Rejected, VerifierKey, check_opening
from proveout.store.pool import Row

WIDTH = 1000  # of a bar's whole, the time from admission to the end


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a request's time: from `x`, `width` of the whole."""

    name: str
    until_ms: float
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class OnRecord:
    """What the receipt of a request says when it is checked as an outsider would. `good` None: there is none yet."""

    good: bool | None
    state: str
    index: int | None = None
    size: int | None = None
    witnesses: int = 0


@shell.for_holders(Right.REQUESTS_READ)
async def show_request(request: Request, caller: Principal) -> Response:
    """`GET /operations/requests/{id}`: what is recorded of one request; what was said is sealed and not shown."""
    here, number = gateway(request), request.path_params["request"]
    row = await here.rooms.journal.get(caller.scope, number)
    names = shell.key_names(request, caller)
    record = await _on_record(here, caller, number) if row["outcome"] else None
    return page_of(row, caller, names.get(row["key"]), record)


def page_of(row: Row, caller: Principal, key: str | None, record: OnRecord | None) -> Response:
    """The page of a request, asked with the key of this name."""
    decision = msgspec.convert(row["decision"], Decision) if row["decision"] else None
    return shell.page(
        "request.html",
        caller,
        row=listed(row, now()),
        intended=row["model"],
        key=key,
        why=why(row),
        spans=spans(row),
        decision=decision,
        retrieval=decision.retrieval if decision else None,
        record=record,
    )


def spans(row: Row) -> Sequence[Span]:
    """What a request's time went by with: each stretch begins where the one before it ended."""
    if row["total_ms"] is None:
        return ()
    found = ((row["decision"] or {}).get("retrieval") or {}).get("ms")
    ends = [
        ("Sources found", found),
        ("First token of the model", row["first_token_ms"]),
        ("First text that left", row["first_sentence_ms"]),
        ("Whole answer", row["total_ms"]),
    ]
    passed = [(name, ms) for name, ms in ends if ms is not None]
    whole = max(0.001, *(ms for _, ms in passed))
    made, before = [], 0.0
    for name, ms in passed:
        x = WIDTH * before / whole
        made.append(Span(name, ms, round(x, 1), round(max(WIDTH * ms / whole - x, 2.0), 1)))
        before = max(before, ms)
    return made


def why(row: Mapping[str, Any]) -> str:
    """Why this release answered."""
    if not row["app"]:
        return "no release: the model was called directly"
    if row["stage"] is None:
        return "it was asked for by its number"
    if row["weight"] is None:
        return f"{row['arm']}: the one release of {row['stage']}, nothing was drawn"
    return f"{row['arm']}: drawn, with {100 * row['weight']:g} % of the traffic of {row['stage']}"


async def _on_record(here: Gateway, caller: Principal, number: str) -> OnRecord:
    try:
        proof = await here.log.proof(caller.scope, number, patience=0)
        policy = Policy(VerifierKey.parse(await here.log.key(caller.scope)))
    except (NotFound, Unavailable):
        return OnRecord(None, "not in the log yet: it takes a second; reload this page")
    try:
        receipt = Receipt.parse(proof.receipt)
        checkpoint, _ = receipt.check(policy)
        if proof.opening is not None:
            check_opening(receipt.extra, proof.opening)
    except Rejected as error:
        return OnRecord(False, f"does not verify: {error.finding}")
    opened = "verified, with what it commits to" if proof.opening else "verified; what it commits to was erased"
    witnesses = receipt.checkpoint.count("\n— ".encode()) - 1
    return OnRecord(True, opened, receipt.index, checkpoint.size, witnesses)
