"""What the quotes add to an answer: all that it does not say yet, while there is room."""

from proveout.domain import Key, Message, Passage, Principal
from proveout.retrieval.cite import Quote
from proveout.serving.call import Asked, Call
from proveout.serving.deliver import Citations, _news, _quotes
from proveout.serving.retrieve import ANSWER_WORDS

SAID = ("Annual leave in Leeds is 25 days.", "Carry-over ends on 31 March.", "word " * 50 + "end.")
PASSAGES = tuple(Passage(str(n), f"{n}.md", "Leave", (), text, 0, len(text)) for n, text in enumerate(SAID))


def added(released: str, *said: int) -> str:
    call = Call(
        "req_1",
        Principal(Key("k", "k", "default", "user"), frozenset()),
        Asked("helpdesk", (Message("user", "How much leave?"),)),
        streamed=False,
        passages=PASSAGES,
        quotes=tuple(Quote(n, SAID[n], 0, len(SAID[n]), 0.5) for n in said),
    )
    return "".join(_quotes(call, released, Citations(PASSAGES)))


def test_all_quotes_follow_with_their_sources() -> None:
    assert added("", 0, 1) == f"{SAID[0]} [1]\n\n{SAID[1]} [2]"


def test_after_words_of_the_model_too_but_for_what_these_say_already() -> None:
    assert added("In Leeds, annual leave is 25 days.", 0, 1) == f"\n\n{SAID[1]} [1]"


def test_of_a_longer_quote_only_what_is_new_comes() -> None:
    quote = f"{SAID[0]} {SAID[1]} Ask the People team."
    said = f"In Leeds, annual leave is 25 days. {SAID[0]}"
    for released, news in (
        ("", quote),
        (said, f"{SAID[1]} Ask the People team."),
        ("Ask the People team.", f"{SAID[0]} {SAID[1]}"),
        (SAID[1], quote),  # what stands between stays: it is a stretch of the source
        (quote, ""),
    ):
        assert _news(quote, released) == news


def test_what_does_not_fit_stays_and_what_is_shorter_comes() -> None:
    released = "other " * (ANSWER_WORDS - 40)
    assert SAID[2] not in added(released, 2, 1) and SAID[1] in added(released, 2, 1)
    most = len(f"{released} {added(released, 2, 1)}".split())
    assert most <= ANSWER_WORDS
