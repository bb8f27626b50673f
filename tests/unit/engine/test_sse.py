import pytest
from hypothesis import given
from hypothesis import strategies as st

from proveout.engine import sse
from proveout.engine.sse import Parser, ServerEvent

STREAM = (
    "\ufeff: a comment\r\n\r\nevent: note\r\ndata: Grüße\r\ndata:東京 🙂\r\n\r\n"
    'data: {"a": 1}\n\ndata\n\nid: 7\nretry: 10\ndata:  two spaces\u2028one line\n\nnot: known\n\n'
    "data: old\rdata: mac\r\revent: forgotten\n\ndata: [DONE]\n\ndata: never finished"
).encode()
EVENTS = [
    ServerEvent("note", "Grüße\n東京 🙂"),
    ServerEvent("message", '{"a": 1}'),
    ServerEvent("message", ""),
    ServerEvent("message", " two spaces\u2028one line"),
    ServerEvent("message", "old\nmac"),
    ServerEvent("message", "[DONE]"),
]


def parse(*chunks: bytes) -> list[ServerEvent]:
    parser = Parser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def test_whole() -> None:
    assert parse(STREAM) == EVENTS


@pytest.mark.parametrize("at", range(len(STREAM) + 1))
def test_cut_anywhere(at: int) -> None:
    assert parse(STREAM[:at], STREAM[at:]) == EVENTS


def test_byte_by_byte() -> None:
    assert parse(*(bytes([b]) for b in STREAM)) == EVENTS


@given(st.lists(st.text(alphabet="ab:\r\n 東", max_size=12)), st.integers(1, 7))
def test_the_cut_never_matters(texts: list[str], size: int) -> None:
    stream = "".join(f"data: {t}\n\n" for t in texts).encode()
    assert parse(*(stream[n : n + size] for n in range(0, len(stream), size))) == parse(stream)


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 1000)
    with pytest.raises(ValueError, match="without end"):
        parse(*[b"data: " + b"x" * 100] * 11)
    with pytest.raises(ValueError, match="without end"):
        parse(*[b"data: " + b"x" * 100 + b"\n"] * 11)


def test_what_is_not_utf8_is_refused_after_what_is() -> None:
    events = Parser().feed("data: Grüße\n\ndata: Gr".encode() + b"\xc3\n\ndata: later\n\n")
    assert next(events).data == "Grüße"
    with pytest.raises(ValueError, match="utf-8"):
        next(events)
