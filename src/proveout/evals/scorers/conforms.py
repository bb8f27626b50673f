"""Whether a value conforms to a JSON Schema, of the keywords that `engine.schema.checked` lets pass."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from urllib.parse import urlsplit

from proveout.engine.schema import checked

_LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_HOST = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_DURATION = re.compile(r"P(?!$)(?:\d+W|(?:\d+Y)?(?:\d+M)?(?:\d+D)?(?:T(?=\d)(?:\d+H)?(?:\d+M)?(?:\d+S)?)?)")


def conforms(value: object, schema: Mapping[str, Any]) -> bool:
    """Whether the value conforms. Raises InvalidInput for a schema with other keywords."""
    root = json.loads(checked(schema, "json_schema"))
    return _conforms(value, root, root.get("$defs", {}))


def _conforms(value: object, node: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    if "$ref" in node:
        return _conforms(value, definitions[node["$ref"].removeprefix("#/$defs/")], definitions)
    if "anyOf" in node:
        return any(_conforms(value, choice, definitions) for choice in node["anyOf"])
    if "enum" in node:  # True is not 1 in JSON
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in node["enum"])
    if "type" not in node:
        return True
    return _TYPES[node["type"]](value, node, definitions)


def _object(value: object, node: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    if not isinstance(value, dict) or not all(name in value for name in node["required"]):
        return False
    for name, held in value.items():
        wanted = node["properties"].get(name, node["additionalProperties"])
        if wanted is False or (wanted is not True and not _conforms(held, wanted, definitions)):
            return False
    return True


def _array(value: object, node: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    return (
        isinstance(value, list)
        and node.get("minItems", 0) <= len(value) <= node.get("maxItems", len(value))
        and all(_conforms(item, node["items"], definitions) for item in value)
    )


def _string(value: object, node: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    return (
        isinstance(value, str)
        and node.get("minLength", 0) <= len(value) <= node.get("maxLength", len(value))
        and ("format" not in node or _has_format(value, node["format"]))
    )


def _number(value: object, node: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if node["type"] == "integer" and value != int(value):
        return False
    return bool(node.get("minimum", value) <= value <= node.get("maximum", value))


_TYPES: Mapping[str, Callable[[object, Mapping[str, Any], Mapping[str, Any]], bool]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _number,
    "number": _number,
    "boolean": lambda value, _, __: isinstance(value, bool),
    "null": lambda value, _, __: value is None,
}


def _has_format(value: str, name: str) -> bool:
    match name:
        case "duration":
            return _DURATION.fullmatch(value) is not None
        case "email":
            user, at, host = value.rpartition("@")
            return bool(at and re.fullmatch(r"[^\s@]{1,64}", user) and _HOST.fullmatch(host))
        case "hostname":
            return _HOST.fullmatch(value) is not None
        case "uri":
            return bool(urlsplit(value).scheme) and not re.search(r"\s", value)
    readers: Mapping[str, Callable[[str], object]] = {
        "date-time": lambda v: datetime.fromisoformat(v) if "T" in v.upper() else int("no time"),
        "date": date.fromisoformat,
        "time": time.fromisoformat,
        "ipv4": IPv4Address,
        "ipv6": IPv6Address,
        "uuid": uuid.UUID,
    }
    try:
        readers[name](value)
    except ValueError:
        return False
    return True
