import asyncio
import time

import pytest

from proveout.domain import Event, Finish, Message, Parameters, Prompt, Text, ToolCall, ToolCallPiece, Usage
from proveout.engine.echo import Echo
from proveout.errors import ProveoutError, Truncated, UpstreamFailed
from proveout.settings import EchoReply, EchoSettings

TOOLS = {"tools": [{"type": "function", "function": {"name": "f"}}]}
LONG = "one two three four five six"


def ask(
    *messages: Message | str,
    script: EchoSettings | None = None,
    tools: bool = False,
    max_tokens: int = 256,
    seed: int | None = None,
) -> list[Event | type[ProveoutError]]:
    """The events, and the kind of error that ended them."""
    turns = tuple(Message("user", m) if isinstance(m, str) else m for m in messages)
    prompt = Prompt("echo", turns, Parameters(max_tokens=max_tokens, seed=seed), TOOLS if tools else {})
    events: list[Event | type[ProveoutError]] = []

    async def collect() -> None:
        try:
            async for event in Echo(script).generate(prompt):
                events.append(event)
        except ProveoutError as error:
            events.append(type(error))

    asyncio.run(collect())
    return events


def said(events: list[Event | type[ProveoutError]]) -> str:
    return "".join(e.text for e in events if isinstance(e, Text))


def test_it_says_the_last_user_message_word_by_word() -> None:
    events = ask(
        Message("system", "be kind"),
        Message("user", "first"),
        Message("assistant", "first"),
        Message("user", "second  question"),
    )
    assert events == [Text("second"), Text("  question"), Finish("stop", Usage(6, 2), "echo")]


def test_max_tokens_cut_it_short_as_a_model_would() -> None:
    assert ask("one two three", max_tokens=2) == [Text("one"), Text(" two"), Finish("length", Usage(3, 2), "echo")]


def test_nothing_asked_is_nothing_said() -> None:
    assert ask(Message("system", "be kind")) == [Finish("stop", Usage(2, 0), "echo")]


def test_replies_by_question_and_by_pattern_the_first_that_fits() -> None:
    replies = {
        "How long?": EchoReply("exact"),
        "LEAVE|holiday": EchoReply("25 days."),
        "days": EchoReply("late"),
        "days of leave": EchoReply("latest"),
    }
    script = EchoSettings("desk", replies)
    assert said(ask("How long?", script=script)) == "exact"
    assert said(ask("how many days of leave?", script=script)) == "25 days."
    assert said(ask("days of leave", script=script)) == "latest"  # the question itself goes before any pattern
    assert said(ask("how many days?", script=script)) == "late"
    assert said(ask("something else", script=script)) == "something else"
    assert ask("holiday", script=script)[-1] == Finish("stop", Usage(1, 2), "echo/desk")


def test_chance_takes_one_of_a_list_and_always_the_same() -> None:
    script = EchoSettings("any", any_of=tuple(EchoReply(str(n)) for n in range(4)))
    answers = [said(ask(f"question {n}", script=script)) for n in range(100)]
    assert answers == [said(ask(f"question {n}", script=script)) for n in range(100)]
    assert all(15 <= answers.count(str(n)) <= 35 for n in range(4))


def test_a_scripted_call_of_a_tool_and_its_result() -> None:
    call = ToolCall("call_1", "f", '{"a": 1}')
    script = EchoSettings("tools", {"weather": EchoReply(None, (call,))})
    assert ask("the weather?", script=script, tools=True) == [
        ToolCallPiece(0, "", "call_1", "f"),
        ToolCallPiece(0, '{"a"'),
        ToolCallPiece(0, ": 1}"),
        Finish("tool_calls", Usage(2, 1), "echo/tools"),
    ]
    assert said(ask("the weather?", script=script)) == "the weather?"  # no tools were offered
    turns = (Message("user", "the weather?"), Message("assistant", "", tool_calls=(call,)))
    assert said(ask(*turns, Message("tool", "rain", tool_call_id="call_1"), script=script, tools=True)) == "rain"


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_errors_come_at_their_rate_and_before_the_first_token(rate: float) -> None:
    script = EchoSettings("bad", error_rate=rate)
    ends = [ask(f"question {n}", script=script) for n in range(200)]
    failed = [events for events in ends if events == [UpstreamFailed]]
    assert abs(len(failed) - 200 * rate) <= 12
    assert all(isinstance(events[-1], Finish) for events in ends if events not in failed)


def test_the_same_request_ends_the_same_and_another_seed_is_another_throw() -> None:
    script = EchoSettings("bad", error_rate=0.5)
    ends = [ask("question", script=script, seed=n) == [UpstreamFailed] for n in range(64)]
    assert ends == [ask("question", script=script, seed=n) == [UpstreamFailed] for n in range(64)]
    assert 16 < sum(ends) < 48
    other = EchoSettings("bad", error_rate=0.5, seed=1)
    assert ends != [ask("question", script=other, seed=n) == [UpstreamFailed] for n in range(64)]


def test_a_truncated_answer_breaks_off_half_way_and_has_no_end() -> None:
    assert ask(LONG, script=EchoSettings("cut", truncate_rate=1)) == [
        Text("one"),
        Text(" two"),
        Text(" three"),
        Truncated,
    ]


def test_a_degraded_answer_has_its_words_in_reverse() -> None:
    script = EchoSettings("worse", {"leave": EchoReply("It is 25 days.")}, degrade_rate=1)
    assert said(ask("leave?", script=script)).split() == ["days.", "25", "is", "It"]


def test_tokens_and_chunks() -> None:
    script = EchoSettings("long", tokens=7, chunk=3)
    assert ask("one two", script=script) == [
        Text("one two one"),
        Text(" two one two"),
        Text(" one"),
        Finish("stop", Usage(2, 7), "echo/long"),
    ]
    assert ask("one two", script=script, max_tokens=4)[-1] == Finish("length", Usage(2, 4), "echo/long")


def test_it_takes_its_time() -> None:
    async def times() -> list[float]:
        began, seen = time.perf_counter(), []
        prompt = Prompt("echo", (Message("user", "one two three"),), Parameters())
        async for _ in Echo(EchoSettings("slow", first_token_ms=60, per_token_ms=30)).generate(prompt):
            seen.append(time.perf_counter() - began)
        return seen

    first, second, third, _ = asyncio.run(times())
    assert 0.06 <= first < 0.2 and second - first >= 0.029 and third - second >= 0.029
