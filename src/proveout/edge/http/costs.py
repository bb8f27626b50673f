"""`GET /api/v1/costs`: what was used, and what it cost."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request

from proveout.access import keys
from proveout.domain import Principal, Right
from proveout.edge.http.requests import gateway, principal
from proveout.ledger import report
from proveout.ledger.journal import now

router = APIRouter(prefix="/api/v1")


@router.get("/costs")
async def list_costs(
    request: Request,
    caller: Annotated[Principal, Depends(principal)],
    by: report.By = "app",
    days: Annotated[int, Query(ge=1, le=366)] = 30,
) -> dict[str, Any]:
    """Requests, tokens and USD of the last days (of 24 hours each) by app, model, day (UTC) or key, evaluations too.

    `name` is null for calls of a model, which have no app. `unpriced` requests went to models without a price: they
    are not in `cost_usd`. Requests that have not ended are left out.
    """
    keys.require(caller, Right.REQUESTS_READ)
    since = now() - timedelta(days=days)
    found = await report.costs(gateway(request).store, caller.scope, by, since)
    whole = {key: value for key, value in msgspec.to_builtins(report.total(found)).items() if key != "name"}
    return {"by": by, "since": since, "costs": msgspec.to_builtins(found), "total": whole}
