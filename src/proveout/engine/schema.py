"""JSON Schemas from strangers: a validator for any of them, and what of one the embedded models can be held to.

The runtime compiles a schema to a grammar (xgrammar) in the middle of a step for all running answers, and one that it
cannot compile breaks the whole pipeline. So a schema is checked before, keyword by keyword, and what cannot be
enforced is refused: dropped silently, it would be a promise that nobody keeps.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from proveout.errors import InvalidInput

MAX_NODES = 256  # of a schema: the grammar of 200 properties takes 0.6 s to compile, for 1,000 it is 17 s
MAX_PROPERTIES = 100
MAX_DEPTH = 12
MAX_LENGTH = 1_000  # characters, items, or choices that are counted out
FORMATS = ("date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")

_NOTES = ("title", "description", "default", "examples", "example", "deprecated", "$schema", "$id", "$comment")
_KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "minItems", "maxItems"),
    "string": ("minLength", "maxLength", "format"),
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
    "boolean": (),
    "null": (),
}
_NAME = re.compile(r'[^"\\\x00-\x1f\x7f]{1,64}')
_REFERENCE = re.compile(r"#/(\$defs|definitions)/([A-Za-z0-9_.-]{1,128})")
_EXACT = 2**53  # whole numbers that every JSON reader keeps


def validator(schema: Mapping[str, Any]) -> jsonschema_rs.Validator:
    """A validator of values, formats included. It fetches nothing, and its patterns take linear time.

    Raises InvalidInput for what is no schema.
    """
    patterns = jsonschema_rs.RegexOptions(size_limit=1_000_000)
    try:
        return jsonschema_rs.validator_for(dict(schema), validate_formats=True, pattern_options=patterns, offline=True)
    except ValueError as error:
        raise InvalidInput(f"json_schema: {error}") from None


def checked(schema: object, where: str) -> str:
    """The schema as JSON, in the form that the runtime takes. Raises InvalidInput with the place and the keyword."""
    return json.dumps(_Check(schema, where).whole(), ensure_ascii=False)


class _Check:
    def __init__(self, schema: object, where: str) -> None:
        self._root, self._where = schema, where
        self._definitions: dict[str, Any] = {}
        if isinstance(schema, dict):
            for key in ("$defs", "definitions"):
                for name, node in self._mapping(schema.get(key, {}), f"{where}.{key}").items():
                    self._definitions[f"#/{key}/{name}"] = node
        self._nodes = self._properties = 0

    def whole(self) -> dict[str, Any]:
        definitions = {
            reference: self._node(node, f"{self._where}{reference[1:].replace('/', '.')}", 1)
            for reference, node in self._definitions.items()
        }
        made = self._node(self._root, self._where, 0)
        if definitions:
            made["$defs"] = {_plain(reference): node for reference, node in definitions.items()}
        return made

    def _node(self, node: object, where: str, depth: int) -> dict[str, Any]:
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise InvalidInput(f"{where}: the schema is too large: at most {MAX_NODES} parts, {MAX_DEPTH} deep.")
        if node is True:
            return {}
        given = {k: v for k, v in self._mapping(node, where).items() if k not in _NOTES}
        if depth == 0:
            given = {k: v for k, v in given.items() if k not in ("$defs", "definitions")}
        for keyword, make in (("$ref", self._reference), ("anyOf", self._any), ("allOf", self._all)):
            if keyword in given:
                self._only(given, {keyword}, where)
                return make(given[keyword], f"{where}.{keyword}", depth)
        if "enum" in given or "const" in given:
            self._only(given, {"enum", "const", "type"}, where)
            return self._choices(given.get("enum", [given.get("const")]), where)
        return self._typed(given, where, depth)

    def _typed(self, given: dict[str, Any], where: str, depth: int) -> dict[str, Any]:
        types = given.pop("type", None)
        if types is None:
            types = [kind for kind, keys in _KEYWORDS.items() if any(k in given for k in keys)][:1]
            if not types:
                self._only(given, set(), where)
                return {}
        types = [types] if isinstance(types, str) else types
        if not isinstance(types, list) or not types or not all(t in _KEYWORDS for t in types):
            raise InvalidInput(f"{where}.type: one or more of {', '.join(_KEYWORDS)} are known.")
        self._only(given, {k for t in types for k in _KEYWORDS[t]}, where)
        made = [self._of_type(t, {k: v for k, v in given.items() if k in _KEYWORDS[t]}, where, depth) for t in types]
        return made[0] if len(made) == 1 else {"anyOf": made}

    def _of_type(self, kind: str, given: dict[str, Any], where: str, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {"type": kind}
        if kind == "object":
            made |= self._object(given, where, depth)
        elif kind == "array":
            made |= self._range(given, "minItems", "maxItems", where, 0, MAX_LENGTH)
            # The runtime takes an array without `items` for an empty one.
            made["items"] = self._node(given.get("items", True), f"{where}.items", depth + 1)
        elif kind == "string":
            made |= self._range(given, "minLength", "maxLength", where, 0, MAX_LENGTH)
            if "format" in given:
                if given["format"] not in FORMATS or len(made) > 1:
                    raise InvalidInput(f"{where}.format: alone, one of {', '.join(FORMATS)} is enforced.")
                made["format"] = given["format"]
        elif kind in ("integer", "number"):
            made |= self._range(given, "minimum", "maximum", where, -_EXACT, _EXACT)
        return made

    def _object(self, given: dict[str, Any], where: str, depth: int) -> dict[str, Any]:
        properties = self._mapping(given.get("properties", {}), f"{where}.properties")
        self._properties += len(properties)
        if self._properties > MAX_PROPERTIES:
            raise InvalidInput(f"{where}.properties: at most {MAX_PROPERTIES} properties are enforced.")
        for name in properties:
            if not _NAME.fullmatch(name):
                raise InvalidInput(f"{where}.properties: the name {name!r} has signs that cannot be enforced.")
        required = given.get("required", [])
        if not isinstance(required, list) or not all(name in properties for name in required):
            raise InvalidInput(f"{where}.required: this is a list of names out of `properties`.")
        more = given.get("additionalProperties", not properties)
        if not isinstance(more, bool):
            more = self._node(more, f"{where}.additionalProperties", depth + 1)
        made = {n: self._node(p, f"{where}.properties.{n}", depth + 1) for n, p in properties.items()}
        return {"properties": made, "required": list(dict.fromkeys(required)), "additionalProperties": more}

    def _range(
        self, given: dict[str, Any], low: str, high: str, where: str, least: int, most: int
    ) -> dict[str, int | float]:
        whole = given.get("type") != "number"
        found = {key: given[key] for key in (low, high) if key in given}
        for key, value in found.items():
            kinds = (int,) if low != "minimum" or whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
                raise InvalidInput(f"{where}.{key}: a whole number between {least} and {most} can be enforced.")
        if found.get(low, -math.inf) > found.get(high, math.inf):
            raise InvalidInput(f"{where}: {low} is above {high}.")
        return found

    def _reference(self, reference: object, where: str, depth: int) -> dict[str, Any]:
        seen = []
        at = reference
        while True:
            if not isinstance(at, str) or not _REFERENCE.fullmatch(at) or at not in self._definitions:
                raise InvalidInput(f"{where}: {at!r} is not a part of this schema's `$defs`.")
            if at in seen:
                raise InvalidInput(f"{where}: {at!r} refers to itself and to nothing else.")
            seen.append(at)
            node = self._definitions[at]
            if not isinstance(node, dict) or "$ref" not in node:
                return {"$ref": f"#/$defs/{_plain(str(reference))}"}
            at = node["$ref"]

    def _any(self, nodes: object, where: str, depth: int) -> dict[str, Any]:
        if not isinstance(nodes, list) or not nodes:
            raise InvalidInput(f"{where}: this is a list of schemas.")
        return {"anyOf": [self._node(node, f"{where}[{n}]", depth + 1) for n, node in enumerate(nodes)]}

    def _all(self, nodes: object, where: str, depth: int) -> dict[str, Any]:
        if not isinstance(nodes, list) or len(nodes) != 1:
            raise InvalidInput(f"{where}: more than one schema at once cannot be enforced; write them as one.")
        return self._node(nodes[0], f"{where}[0]", depth + 1)

    def _choices(self, values: object, where: str) -> dict[str, Any]:
        if not isinstance(values, list) or not 0 < len(values) <= MAX_LENGTH:
            raise InvalidInput(f"{where}.enum: this is a list of 1 to {MAX_LENGTH} values.")
        for value in values:
            if not isinstance(value, str | int | float | None) or (isinstance(value, str) and len(value) > MAX_LENGTH):
                raise InvalidInput(f"{where}.enum: only texts, numbers, booleans and null can be enforced.")
        return {"enum": values}

    def _only(self, given: Mapping[str, object], known: set[str], where: str) -> None:
        for keyword in given:
            if keyword not in known:
                raise InvalidInput(f"{where}.{keyword}: the embedded models cannot be held to this here; leave it out.")

    @staticmethod
    def _mapping(node: object, where: str) -> dict[str, Any]:
        if not isinstance(node, dict):
            raise InvalidInput(f"{where}: this is a mapping.")
        return node


def _plain(reference: str) -> str:
    """A definition's name in the grammar: both places for definitions become one."""
    found = _REFERENCE.fullmatch(reference)
    assert found is not None
    return f"{found[1].strip('$')[0]}_{found[2]}"
