"""Whether a call of a tool, as the model wrote it, can be carried out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from proveout.engine.schema import validator
from proveout.errors import InvalidInput
from proveout.ledger.decision import ToolFault


def fault(offered: Any, name: str, arguments: str) -> ToolFault | None:
    """What is wrong with a call of one of the `offered` tools (OpenAI's `tools`); None: nothing.

    A schema that is none itself says nothing against the call.
    """
    functions = [tool["function"] for tool in offered or () if isinstance(tool.get("function"), Mapping)]
    function = next((one for one in functions if one.get("name") == name), None)
    if function is None:
        return "unknown"
    try:
        given = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return "json"
    parameters = function.get("parameters")
    schema = {"type": "object", **(parameters if isinstance(parameters, Mapping) else {})}
    try:
        fits = validator(schema).is_valid(given)
    except (InvalidInput, ValueError):  # no schema, or values that are nested too deeply to be compared
        fits = isinstance(given, dict)
    return None if fits else "schema"
