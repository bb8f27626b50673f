import json
from typing import Any

import pytest

from proveout.engine.schema import MAX_NODES, MAX_PROPERTIES, checked
from proveout.errors import InvalidInput

PERSON = {
    "title": "Person",
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "in full", "minLength": 1},
        "age": {"type": ["integer", "null"], "minimum": 0},
        "kind": {"enum": ["a", 1, None]},
        "boss": {"$ref": "#/$defs/Person"},
        "tags": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"const": 3}]}, "maxItems": 4},
        "born": {"type": "string", "format": "date"},
        "more": {"type": "object"},
    },
    "required": ["name", "name"],
    "$defs": {"Person": {"type": "object", "properties": {"boss": {"$ref": "#/$defs/Person"}}}},
}


def test_a_schema_is_kept_without_its_notes() -> None:
    made = json.loads(checked(PERSON, "s"))
    assert "title" not in made and "description" not in made["properties"]["name"]
    assert made["required"] == ["name"] and made["additionalProperties"] is False
    assert made["properties"]["more"]["additionalProperties"] is True
    assert made["properties"]["age"] == {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]}
    assert made["properties"]["boss"] == {"$ref": "#/$defs/d_Person"} and "d_Person" in made["$defs"]
    assert json.loads(checked({"type": "array", "minItems": 1}, "s")) == {"type": "array", "minItems": 1, "items": {}}
    assert checked(True, "s") == checked({}, "s") == "{}"


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "nonsense"}, "s.type"),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}, "s.properties.a.pattern"),
        ({"oneOf": [{"type": "string"}]}, "s.oneOf"),
        ({"type": "string", "minLength": 5, "maxLength": 2}, "minLength is above maxLength"),
        ({"type": "string", "maxLength": 100_000}, "s.maxLength"),
        ({"type": "string", "format": "nonsense"}, "s.format"),
        ({"type": "integer", "minimum": 1.5}, "s.minimum"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum is above maximum"),
        ({"type": "number", "minimum": float("nan")}, "s.minimum"),
        ({"type": "integer", "minimum": True}, "s.minimum"),
        ({"$ref": "#/$defs/x"}, "s.[$]ref"),
        ({"$ref": "http://x/y"}, "s.[$]ref"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "#/$defs/x"}}}, "itself"),
        ({"anyOf": []}, "s.anyOf"),
        ({"enum": []}, "s.enum"),
        ({"enum": [{}]}, "s.enum"),
        ({"type": "object", "properties": {"a": False}}, "s.properties.a"),
        ({"type": "object", "properties": {'"': {}}}, "s.properties"),
        ({"type": "object", "properties": {}, "required": ["b"]}, "s.required"),
        ({"type": "object", "minProperties": 2}, "s.minProperties"),
        ({"type": "object", "properties": {str(n): {} for n in range(MAX_PROPERTIES + 1)}}, "at most"),
        ({"anyOf": [{}] * MAX_NODES}, "too large"),
        ("text", "mapping"),
        ({"$defs": [], "type": "string"}, "s.[$]defs"),
    ],
)
def test_what_cannot_be_enforced_is_refused_with_its_place(schema: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        checked(schema, "s")


def test_deep_schemas_are_refused() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(5_000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(InvalidInput, match="too large"):
        checked(schema, "s")
