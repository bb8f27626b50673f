import json

import pytest

from proveout.engine.calls import CallReader, grammar
from proveout.engine.channel import Piece, ToolPiece
from proveout.engine.template import HERMES, LLAMA, CallForm
from proveout.errors import InvalidInput

ARGUMENTS = json.dumps({"a": '}\n</tool_call> "{', "b": {"c": ["}", {}]}, "d": "\\"})
TWO = (
    f'Let me see. <tool_call>\n{{"name": "first", "arguments": {ARGUMENTS}}}\n</tool_call>\n'
    f'<tool_call>\n{{"name": "second", "arguments": {{}}}}\n</tool_call>\n'
)


def read(form: CallForm, text: str, size: int) -> tuple[str, list[tuple[str | None, str]], int]:
    reader = CallReader(form)
    pieces = [p for at in range(0, len(text), size) for p in reader.push(text[at : at + size])] + list(reader.end())
    calls: dict[int, tuple[str | None, str]] = {}
    for piece in pieces:
        if isinstance(piece, ToolPiece):
            assert (piece.id is not None) == (piece.index not in calls)
            name, arguments = calls.get(piece.index, (piece.name, ""))
            calls[piece.index] = (name, arguments + piece.arguments)
    return "".join(p.text for p in pieces if isinstance(p, Piece)), list(calls.values()), reader.called


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_calls_are_read_from_any_cut(size: int) -> None:
    assert read(HERMES, TWO, size) == ("Let me see.", [("first", ARGUMENTS), ("second", "{}")], 2)
    llama = f'{{"name": "f", "parameters": {ARGUMENTS}}}'
    assert read(LLAMA, llama, size) == ("", [("f", ARGUMENTS)], 1)
    text = " a <b\n\n<tool {x} "
    assert read(HERMES, text, size) == (text, [], 0)


def test_a_call_that_was_cut_off_is_not_whole() -> None:
    assert read(HERMES, TWO[:60], 5)[2] == 0


def test_schemas_of_strict_tools_must_be_enforceable() -> None:
    function = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"pattern": "x", "type": "string"}}}}
    grammar([{"function": function}], HERMES, "auto", True)
    with pytest.raises(InvalidInput, match=r"tools\[0\].function.parameters.properties.a.pattern"):
        grammar([{"function": {**function, "strict": True}}], HERMES, "auto", True)
