"""OpenAI's own clients, unmodified, in Python and in Node: everything they send is served or refused, all is parsed."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from acme_provider import Bodies, provider
from conftest import ROOT, Server, start_server

ONE: list[ChatCompletionMessageParam] = [{"role": "user", "content": "one two three"}]
WEATHER: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the weather in Leeds?"}]
PARAMETERS: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": PARAMETERS, "strict": True},
}
MODEL = "local/all-minilm-l6-v2"


class Leave(BaseModel):
    days: int


@pytest.fixture(scope="module")
def upstream() -> Iterator[tuple[str, Bodies]]:
    with provider() as running:
        yield running


@pytest.fixture(scope="module")
def asked(upstream: tuple[str, Bodies]) -> Bodies:
    """What the provider was sent."""
    return upstream[1]


@pytest.fixture(scope="module")
def here(upstream: tuple[str, Bodies], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the provider `acme`, a scripted fake, an app without knowledge and one with."""
    folder = tmp_path_factory.mktemp("clients")
    scripted = {
        "desk": {"replies": {"weather": {"tool_calls": [{"name": "get_weather", "arguments": {"city": "York"}}]}}}
    }
    models = {name: {"version": "1"} for name in ("large", "cut", "busy")}
    config = {"providers": {"acme": {"base_url": upstream[0], "models": models}}, "echo": scripted}
    (folder / "proveout.yaml").write_text(json.dumps(config))  # JSON is YAML
    apps: dict[str, dict[str, Any]] = {
        "plain": {"model": {"use": "acme/large"}},
        "desk": {"model": {"use": "echo"}, "knowledge": [{"name": "facts", "source": "facts"}]},
    }
    for name, more in apps.items():
        (folder / name / "facts").mkdir(parents=True)
        (folder / name / "facts" / "leave.md").write_text("# Leave\nEverybody in Leeds gets 25 days of leave a year.\n")
        who = {"accountable": "a@example.com", "operator": "b@example.com"}
        (folder / name / "app.yaml").write_text(
            json.dumps({"app": name, "purpose": "To be asked.", "owners": who, **more})
        )
    running = start_server(
        folder / "data", *(str(folder / name) for name in apps), "--config", str(folder / "proveout.yaml")
    )
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def client(here: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{here.url}/v1", api_key=here.owner_key, max_retries=0) as made:
        yield made


def record(here: Server, request: str) -> dict[str, Any]:
    call = urllib.request.Request(
        f"{here.url}/api/v1/requests/{request}", headers={"Authorization": f"Bearer {here.owner_key}"}
    )
    with urllib.request.urlopen(call) as response:
        return dict(json.load(response))


def about(answer: BaseModel) -> dict[str, Any]:
    assert answer.model_extra is not None
    return dict(answer.model_extra["proveout"])


def test_models(client: openai.OpenAI) -> None:
    names = {model.id for model in client.models.list()}
    assert {"plain", "desk", "desk:poc", "echo", "echo/desk", "acme/large", MODEL} <= names
    assert client.models.retrieve("acme/large").id == "acme/large"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nowhere")


def test_chat_whole_and_streamed(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="echo", messages=ONE)
    assert answer.choices[0].message.content == "one two three" and answer.choices[0].finish_reason == "stop"
    with client.chat.completions.stream(model="echo", messages=ONE, stream_options={"include_usage": True}) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
    whole = stream.get_final_completion()
    assert deltas == ["", "one", " two", " three"] and whole.choices[0].message.content == "one two three"
    assert whole.usage is not None and whole.usage.total_tokens == 6


@pytest.mark.parametrize("model", ["acme/large", "plain"])
def test_the_loop_of_tools(client: openai.OpenAI, here: Server, asked: Bodies, model: str) -> None:
    first = client.chat.completions.create(
        model=model, messages=WEATHER, tools=[TOOL], tool_choice="required", parallel_tool_calls=True
    )
    assert first.choices[0].finish_reason == "tool_calls" and first.choices[0].message.content is None
    calls = first.choices[0].message.tool_calls or []
    assert [(c.id, c.function.arguments) for c in calls if c.type == "function"] == [
        ("call_0", '{"city": "Leeds"}'),
        ("call_1", '{"city": "Hull"}'),
    ]
    assert asked[-1]["tools"] == [TOOL] and asked[-1]["tool_choice"] == "required"
    assert asked[-1]["parallel_tool_calls"] is True
    recorded = record(here, about(first)["request"])
    assert recorded["outcome"] == "answered"
    assert [(tool["name"], tool["fault"]) for tool in recorded["decision"]["tools"]] == [("get_weather", None)] * 2
    turns: list[Any] = [*WEATHER, first.choices[0].message]
    turns += [{"role": "tool", "tool_call_id": c.id, "content": "rain"} for c in calls]
    second = client.chat.completions.create(model=model, messages=turns, tools=[TOOL])
    assert second.choices[0].message.content == "The tools say rain, rain."
    sent = asked[-1]["messages"][-3:]
    assert [m["role"] for m in sent] == ["assistant", "tool", "tool"]
    assert sent[0]["tool_calls"] == [c.to_dict() for c in calls] and sent[0]["content"] is None
    assert [m["tool_call_id"] for m in sent[1:]] == ["call_0", "call_1"]


def test_tools_streamed(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="acme/large", messages=WEATHER, tools=[TOOL]) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
    assert [event.parsed_arguments for event in done] == [{"city": "Leeds"}, {"city": "Hull"}]
    choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls"
    assert [call.id for call in choice.message.tool_calls or []] == ["call_0", "call_1"]
    fake = client.chat.completions.create(model="echo/desk", messages=WEATHER, tools=[TOOL])
    assert [c.function.arguments for c in fake.choices[0].message.tool_calls or [] if c.type == "function"] == [
        '{"city": "York"}'
    ]


def test_a_schema(client: openai.OpenAI, asked: Bodies) -> None:
    parsed = client.chat.completions.parse(model="acme/large", messages=ONE, response_format=Leave)
    assert parsed.choices[0].message.parsed == Leave(days=25)
    assert asked[-1]["response_format"]["json_schema"]["schema"]["properties"]["days"]["type"] == "integer"
    response = client.responses.parse(model="acme/large", input="days?", text_format=Leave)
    assert response.output_parsed == Leave(days=25)
    assert asked[-1]["response_format"]["json_schema"]["name"] == "Leave"


def test_what_passes_through(client: openai.OpenAI, asked: Bodies) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    parts: Any = [{"type": "text", "text": "What is it?"}, image]
    answer = client.chat.completions.create(
        model="acme/large",
        messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts, "name": "ann"}],
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={"50256": -100},
        logprobs=True,
        top_logprobs=1,
        reasoning_effort="low",
        user="ann",
        metadata={"conversation": "c1"},
        store=False,
        service_tier="auto",
    )
    assert answer.choices[0].logprobs is not None and answer.choices[0].logprobs.content is not None
    assert [t.token for t in answer.choices[0].logprobs.content] == ["Yes"]
    sent = asked[-1]
    assert sent["messages"][1] == {"role": "user", "content": parts, "name": "ann"}
    assert (sent["presence_penalty"], sent["frequency_penalty"], sent["logit_bias"]) == (0.5, -0.5, {"50256": -100})
    assert (sent["logprobs"], sent["top_logprobs"], sent["reasoning_effort"]) == (True, 1, "low")
    assert not {"user", "metadata", "store", "service_tier"} & sent.keys()
    client.chat.completions.create(model="plain", messages=[{"role": "user", "content": parts}])
    assert asked[-1]["messages"][-1]["content"][1] == image


def test_ends_that_are_not_stops(client: openai.OpenAI, here: Server) -> None:
    filtered = client.chat.completions.create(model="acme/filtered", messages=ONE)
    assert filtered.choices[0].finish_reason == "content_filter"
    assert record(here, about(filtered)["request"])["outcome"] == "refused"
    refusal = client.chat.completions.create(model="acme/refuses", messages=ONE)
    assert refusal.choices[0].message.refusal == "I will not." and refusal.choices[0].message.content is None
    response = client.responses.create(model="acme/filtered", input="x")
    assert response.status == "incomplete" and response.incomplete_details is not None
    assert response.incomplete_details.reason == "content_filter"
    short = client.responses.create(model="echo", input="one two three", max_output_tokens=2)
    assert short.status == "incomplete" and short.output_text == "one two"


def test_responses(client: openai.OpenAI, here: Server, asked: Bodies) -> None:
    whole = client.responses.create(model="echo", instructions="Be kind.", input="one two three")
    assert whole.output_text == "one two three" and whole.status == "completed"
    assert whole.usage is not None and (whole.usage.input_tokens, whole.usage.output_tokens) == (5, 3)
    assert record(here, about(whole)["request"])["outcome"] == "answered"
    with client.responses.stream(model="echo", input=[{"role": "user", "content": "one two three"}]) as stream:
        events = list(stream)
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert stream.get_final_response().output_text == "one two three"
    assert [e.type.removeprefix("response.") for e in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 3,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    refused = client.responses.create(model="acme/refuses", input="x").output[0]
    assert refused.type == "message" and refused.content[0].type == "refusal"


def test_responses_with_tools(client: openai.OpenAI, asked: Bodies) -> None:
    tool: Any = {"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": True}
    with client.responses.stream(
        model="acme/large", instructions="Be brief.", input="Weather?", tools=[tool], tool_choice=tool
    ) as stream:
        kinds = [event.type for event in stream]
    assert kinds.count("response.function_call_arguments.delta") == 4
    calls = [item for item in stream.get_final_response().output if item.type == "function_call"]
    assert [call.parsed_arguments for call in calls] == [{"city": "Leeds"}, {"city": "Hull"}]
    assert asked[-1]["tools"][0]["function"]["name"] == "get_weather" and asked[-1]["tool_choice"]["type"] == "function"
    outputs = [{"type": "function_call_output", "call_id": c.call_id, "output": "rain"} for c in calls]
    turns: Any = [{"role": "user", "content": "Weather?"}, *(c.to_dict() for c in calls), *outputs]
    answer = client.responses.create(model="acme/large", input=turns, tools=[tool])
    assert answer.output_text == "The tools say rain, rain."
    assert [m["role"] for m in asked[-1]["messages"]] == ["user", "assistant", "tool", "tool"]


def test_completions(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="echo", prompt=["one two"], max_tokens=1)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("one", "length")
    stream = client.completions.create(
        model="plain", prompt="one two", stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].text for c in chunks if c.choices) == "Yes."
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 16


def test_embeddings(client: openai.OpenAI, here: Server, asked: Bodies) -> None:
    texts = ["The cat sat on the mat.", "A cat was sitting on a mat.", "The bank raised its rates."]
    raw = client.embeddings.with_raw_response.create(model=MODEL, input=texts)
    rows = [e.embedding for e in raw.parse().data]
    assert [len(row) for row in rows] == [384] * 3
    near, far = (sum(a * b for a, b in zip(rows[0], row, strict=True)) for row in rows[1:])
    assert near > 0.7 > 0.3 > far
    plain = client.embeddings.create(model=MODEL, input=texts[0], encoding_format="float").data[0].embedding
    assert plain == pytest.approx(rows[0], abs=0.02)  # alone and in a batch, bf16 differs a little
    kept = record(here, raw.headers["x-proveout-request"])
    assert kept["outcome"] == "answered" and kept["model"] == MODEL
    assert kept["prompt_tokens"] == raw.parse().usage.prompt_tokens > 10
    remote = client.embeddings.create(model="acme/embed", input=["a", "b"], dimensions=2)
    assert [e.embedding for e in remote.data] == [[0.0, 0.5], [1.0, 0.5]] and remote.usage.total_tokens == 7
    assert asked[-1]["dimensions"] == 2


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "n": ("echo", {"n": 2}, "n: one answer"),
    "unknown": ("echo", {"extra_body": {"temprature": 1}}, "temprature"),
    "audio": ("echo", {"modalities": ["audio"]}, "modalities: only text"),
    "functions": ("echo", {"functions": [{"name": "f"}]}, "use tools"),
    "custom": ("acme/large", {"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
    "no tools": ("acme/large", {"tool_choice": "required"}, "no tools to choose"),
    "grammar": ("acme/large", {"response_format": {"type": "grammar"}}, "response_format.type"),
    "local": ("local/smollm2-135m-instruct", {"tools": [TOOL]}, "tools: the local model"),
    "schema": (
        "local/smollm2-135m-instruct",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"pattern": "^a"}}}},
        "response_format.json_schema.schema.pattern",
    ),
    "bias": ("local/smollm2-135m-instruct", {"logit_bias": {"1": 1}}, "logit_bias: the local model"),
    "sources": ("desk", {"tools": [TOOL]}, "tools: the app 'desk' answers in text that its sources support"),
    "sources, schema": ("desk", {"response_format": {"type": "json_object"}}, "response_format: the app 'desk'"),
    "sources, tokens": ("desk", {"logprobs": True}, "logprobs: the app 'desk'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_served_is_refused_with_a_reason(client: openai.OpenAI, case: str) -> None:
    model, body, reason = REFUSED[case]
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=model, messages=ONE, **body)
    assert reason in raised.value.message
    assert raised.value.code == "invalid_request"
    assert raised.value.response.headers["x-proveout-request"].startswith("req_")


@pytest.mark.parametrize(
    "body", [{"store": True}, {"previous_response_id": "resp_1"}, {"background": True}, {"truncation": "auto"}]
)
def test_responses_are_not_stored(client: openai.OpenAI, body: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError, match=next(iter(body))):
        client.responses.create(model="echo", input="x", **body)


def test_errors(client: openai.OpenAI, here: Server) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.responses.create(model="nowhere", input="x")
    assert "GET /v1/models" in raised.value.message and raised.value.response.headers["x-proveout-request"]
    with pytest.raises(openai.InternalServerError) as busy:
        client.chat.completions.create(model="acme/busy", messages=ONE)
    assert busy.value.status_code == 503 and busy.value.response.headers["retry-after"] == "7"
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="echo", input="x")
    with pytest.raises(openai.NotFoundError, match="is not served") as nothing:
        client.get("/chat/completions", cast_to=object)
    assert nothing.value.response.headers["x-proveout-request"]
    stranger = openai.OpenAI(base_url=f"{here.url}/v1", api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError) as wrong:
        stranger.embeddings.create(model=MODEL, input="x")
    assert wrong.value.response.headers["x-proveout-request"]


def test_a_stream_that_breaks_says_so(client: openai.OpenAI, here: Server) -> None:
    text = ""
    with pytest.raises(openai.APIError, match=r"broke off|ended its stream"):
        for chunk in client.chat.completions.create(model="acme/cut", messages=ONE, stream=True):
            text += chunk.choices[0].delta.content or ""
    assert text == "half an ans"
    kinds = []
    with pytest.raises(openai.APIError, match=r"broke off|ended its stream"):
        for event in client.responses.create(model="acme/cut", input="x", stream=True):
            kinds.append(event.type)
    assert kinds[-1] == "response.output_text.delta"
    with pytest.raises(openai.APIError, match=r"broke off|ended its stream"):
        list(client.completions.create(model="acme/cut", prompt="x", stream=True))


def test_the_client_for_node(here: Server, node_modules: Path) -> None:
    shutil.copy(ROOT / "tests" / "node" / "clients.test.mjs", node_modules.parent)
    done = subprocess.run(
        ["node", "--test", "clients.test.mjs"],
        cwd=node_modules.parent,
        env={**here.environment, "PROVEOUT_KEY": here.owner_key},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
