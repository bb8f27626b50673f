import asyncio

from proveout.domain import Event, Finish, Message, Parameters, Prompt, Text, Usage
from proveout.engine.echo import Echo


def answer(*messages: Message, max_tokens: int = 256) -> list[Event]:
    async def collect() -> list[Event]:
        prompt = Prompt("echo", messages, Parameters(max_tokens=max_tokens))
        return [event async for event in Echo().generate(prompt)]

    return asyncio.run(collect())


def test_it_says_the_last_user_message_word_by_word() -> None:
    events = answer(
        Message("system", "be kind"),
        Message("user", "first"),
        Message("assistant", "first"),
        Message("user", "second  question"),
    )
    assert events == [Text("second"), Text("  question"), Finish("stop", Usage(6, 2))]


def test_max_tokens_cut_it_short_as_a_model_would() -> None:
    assert answer(Message("user", "one two three"), max_tokens=2) == [
        Text("one"),
        Text(" two"),
        Finish("length", Usage(3, 2)),
    ]


def test_nothing_asked_is_nothing_said() -> None:
    assert answer(Message("system", "be kind")) == [Finish("stop", Usage(2, 0))]
