"""`proveout costs`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from proveout.edge.cli import output
from proveout.edge.cli.client import ask


class By(StrEnum):
    """What costs are told by."""

    APP = "app"
    MODEL = "model"
    DAY = "day"
    KEY = "key"


def costs(
    by: Annotated[By, typer.Option(help="What costs are told by; days are UTC.")] = By.APP,
    days: Annotated[int, typer.Option(help="How many days of 24 hours back.")] = 30,
    json: output.AsJson = False,
) -> None:
    """Show requests, tokens and USD. Unpriced requests are not in the USD: their models have no price."""

    found = ask("GET", f"/api/v1/costs?by={by}&days={days}")
    if json:
        output.document(found)
    else:
        rows = [{by.value: row["name"], **row} for row in found["costs"]] + [{by.value: "total", **found["total"]}]
        columns = (by.value, "requests", "prompt_tokens", "completion_tokens", "cost_usd", "unpriced")
        output.table([{**row, "cost_usd": f"{row['cost_usd']:.6f}"} for row in rows], columns)
