"""The log: one JSON object a line for machines, plain lines for people. Never content."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

current_request: ContextVar[str | None] = ContextVar("current_request", default=None)
"""The request that is being answered, for whatever is logged meanwhile."""

_QUIET = ("httpx", "uvicorn.access", "opentelemetry")


class JsonLines(logging.Formatter):
    """time, level, logger, message; `request` where one is being answered.

    Of an exception its type and places are told, not its words: those may quote what was asked.
    """

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request := current_request.get()) is not None:
            told["request"] = request
        if record.exc_info and record.exc_info[0] is not None:
            places = traceback.extract_tb(record.exc_info[2])
            told["error"] = record.exc_info[0].__name__
            told["places"] = [f"{place.filename}:{place.lineno} {place.name}" for place in places]
        return json.dumps(told, ensure_ascii=False)


def begin_log(kind: Literal["json", "text"] | None, level: int = logging.INFO) -> None:
    """Writes the log to standard error from now on; None: text on a terminal, JSON lines elsewhere."""
    handler = logging.StreamHandler(sys.stderr)
    if kind == "json" or (kind is None and not sys.stderr.isatty()):
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
