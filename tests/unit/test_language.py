"""Words, numbers and sentences: what the search, the quote and the support check agree on."""

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from proveout.language import SentenceStream, content_words, numbers, sentences, words

HARD = (
    "Dr. Smith pays 2.5 % e.g. for hotels. See No. 5 first. It is (really!) fine.\n- bullet one\n"
    "- a bullet so long that the editor wrapped it at the end of\n  its line\n| a | b |\n| c | d |\n\nHeading\n"
    'A line of more than forty-five characters that was\nwrapped. Is it? "Yes." He left at 5 p.m. The end.\n'
    "1. Open it\n2. Close it"
)


def test_words_keep_numbers_whole() -> None:
    assert words("Pay £1,250.50 by 9:30, don’t wait") == ["pay", "1,250.50", "by", "9:30", "don't", "wait"]


def test_content_words_are_stems_without_stop_words() -> None:
    assert content_words("Are the employees' 1,250 holidays carried over?") == ["employe", "1250", "holiday", "carri"]


def test_numbers_agree_across_notations() -> None:
    assert numbers("twenty-five days") == numbers("25 days") == {"25"}
    assert numbers("£1,250.50") == numbers("GBP 1250.50") == {"1250.5", "1250.5 gbp"}
    assert numbers("80 euros") <= numbers("a day rate of €80 and 5%")
    assert numbers("15 per cent") == {"15", "15%"}
    assert not numbers("10%") <= numbers("10 days")
    assert numbers("one of them") == set()
    assert numbers("10k") == {"10000"}


def test_sentences_are_natural_units_with_exact_offsets() -> None:
    found = sentences(HARD)
    assert all(HARD[s.start : s.end] == s.text for s in found)
    assert [s.text for s in found] == [
        "Dr. Smith pays 2.5 % e.g. for hotels.",
        "See No. 5 first.",
        "It is (really!) fine.",
        "- bullet one",
        "- a bullet so long that the editor wrapped it at the end of\n  its line",
        "| a | b |",
        "| c | d |",
        "Heading",
        "A line of more than forty-five characters that was\nwrapped.",
        "Is it?",
        '"Yes."',
        "He left at 5 p.m.",
        "The end.",
        "1. Open it",
        "2. Close it",
    ]


@given(st.lists(st.integers(1, 12), min_size=1))
@settings(max_examples=200, deadline=None)
def test_a_stream_cuts_as_the_whole_text_and_loses_nothing(sizes: list[int]) -> None:
    stream, out, at = SentenceStream(), [], 0
    while at < len(HARD):
        size = sizes[at % len(sizes)]
        out += stream.feed(HARD[at : at + size])
        at += size
    out += stream.close()
    assert "".join(out) == HARD
    assert [piece.strip() for piece in out] == [s.text for s in sentences(HARD)]


@given(st.text(alphabet="aB1 .\n-|?é€", max_size=60), st.integers(1, 7))
@settings(deadline=None)
def test_any_text_comes_out_byte_for_byte(text: str, size: int) -> None:
    stream = SentenceStream()
    out = [p for at in range(0, len(text), size) for p in stream.feed(text[at : at + size])]
    assert "".join([*out, *stream.close()]) == text


def test_a_sentence_is_given_out_before_the_stream_ends() -> None:
    stream = SentenceStream()
    assert stream.feed("You get 25 days. They can be ") == ["You get 25 days. "]


def test_hostile_runs_are_cut_in_linear_time() -> None:
    started = time.perf_counter()
    sentences(" " * 200_000 + "x" + "." * 200_000 + "x" + " \n" * 100_000)
    assert time.perf_counter() - started < 2
