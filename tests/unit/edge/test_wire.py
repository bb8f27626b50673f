"""What OpenAI's bodies become; the clients' story (tests/stories/test_clients.py) shows the rest of the way."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from proveout.domain import Message, ToolCall
from proveout.edge.openai.chat import ChatRequest
from proveout.edge.openai.completions import CompletionRequest
from proveout.edge.openai.embeddings import EmbeddingRequest
from proveout.edge.openai.responses import ResponsesRequest
from proveout.errors import InvalidInput
from proveout.serving.call import Asked

HI = {"role": "user", "content": "hi"}
IMAGE = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
TOOL = {"type": "function", "function": {"name": "f"}}


def chat(*messages: dict[str, Any], **more: Any) -> Asked:
    return msgspec.convert({"messages": list(messages) or [HI], **more}, ChatRequest).asked()


def response(given: Any, **more: Any) -> Asked:
    return msgspec.convert({"input": given, **more}, ResponsesRequest).asked()


def test_messages() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked = chat(
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": []},
        {"role": "tool", "tool_call_id": "a", "content": "rain"},
        {"role": "user", "content": [{"type": "text", "text": "?"}, IMAGE]},
    )
    assert asked.messages == (
        Message("system", "be brief"),
        Message("user", "ab", name="ann"),
        Message("assistant", "", tool_calls=(ToolCall("a", "f", "{}"),)),
        Message("tool", "rain", tool_call_id="a"),
        Message("user", "?", ({"type": "text", "text": "?"}, IMAGE)),
    )
    assert asked.needs == ("messages",)


def test_only_what_is_set_and_not_neutral_is_an_option() -> None:
    neutral = {
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "response_format": {"type": "text"},
        "presence_penalty": 0,
        "logit_bias": {},
        "logprobs": False,
        "user": "ann",
        "metadata": {"a": "b"},
        "store": True,
        "service_tier": "auto",
        "prompt_cache_key": "k",
        "n": 1,
    }
    assert chat(**neutral).options == {} and chat(**neutral).needs == ()
    asked = chat(tools=[TOOL], tool_choice="auto", parallel_tool_calls=False, presence_penalty=0.5)
    assert asked.options == {
        "tools": [TOOL],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "presence_penalty": 0.5,
    }


@pytest.mark.parametrize(
    ("message", "where"),
    [
        ({"role": "wizard", "content": "x"}, "messages[0].role"),
        ({"role": "tool", "content": "x"}, "messages[0].tool_call_id"),
        ({"role": "user", "content": [{"type": "video", "url": "x"}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text"),
    ],
)
def test_a_wrong_message_is_named(message: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        chat(message)
    assert raised.value.message.startswith(where)


def test_input_items_become_turns() -> None:
    calls = [{"type": "function_call", "id": f"fc_{n}", "call_id": n, "name": "f", "arguments": "{}"} for n in "ab"]
    outputs = [{"type": "function_call_output", "call_id": n, "output": "rain"} for n in "ab"]
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me look."}]}
    asked = response([HI, said, *calls, *outputs, HI], instructions="be brief", max_output_tokens=5)
    assert asked.messages == (
        Message("system", "be brief"),
        Message("user", "hi"),
        Message("assistant", "Let me look.", tool_calls=(ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}"))),
        Message("tool", "rain", tool_call_id="a"),
        Message("tool", "rain", tool_call_id="b"),
        Message("user", "hi"),
    )
    assert asked.max_tokens == 5
    image = {"type": "input_image", "image_url": "https://x/y.png"}
    parts = response([{"role": "user", "content": [{"type": "input_text", "text": "?"}, image]}]).messages[0].parts
    assert parts[1] == {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "auto"}}


def test_tools_and_schema_of_responses_are_those_of_chat() -> None:
    tool = {"type": "function", "name": "f", "parameters": {}, "strict": True}
    shape = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    asked = response("x", tools=[tool], tool_choice={"type": "function", "name": "f"}, text={"format": shape})
    assert asked.options == {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}, "strict": True}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
        },
    }


@pytest.mark.parametrize(
    ("given", "more", "where"),
    [
        ([{"type": "item_reference", "id": "x"}], {}, "input[0].type"),
        (
            [{"type": "function_call", "name": "f", "arguments": "{}"}],
            {},
            "input[0]: Object missing required field `call_id`",
        ),
        ([{"role": [], "content": "x"}], {}, "input[0]: Expected `str`"),
        ([{"role": "user", "content": 5}], {}, "input[0]: Expected `str | array`"),
        ([{"type": ["message"]}], {}, "input[0].type"),
        ([{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}], {}, "input[0].content[0]"),
        ([], {}, "input"),
        ("x", {"conversation": "c"}, "conversation"),
        ("x", {"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ("x", {"include": ["file_search_call.results"]}, "include"),
        ("x", {"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ("x", {"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_what_responses_do_not_serve_is_named(given: Any, more: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        response(given, **more)
    assert raised.value.message.startswith(where)


@pytest.mark.parametrize("more", [{"prompt": ["a", "b"]}, {"prompt": [1, 2]}, {"n": 2}, {"best_of": 2}, {"echo": True}])
def test_what_completions_do_not_serve(more: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        msgspec.convert({"prompt": "x", **more}, CompletionRequest).asked()


@pytest.mark.parametrize("given", [[], [1, 2], [[1, 2]], ["x"] * 2049])
def test_what_embeddings_do_not_serve(given: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^input"):
        msgspec.convert({"input": given}, EmbeddingRequest).asked()
