from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from proveout.engine.detokenise import Bytes, Characters, Detokeniser, Window


def replacing(ids: list[int]) -> str:
    """A byte-level vocabulary whose decoder marks half characters."""
    return bytes(ids).decode(errors="replace")


def dropping(ids: list[int]) -> str:
    """The same, of a decoder that leaves half characters out, as OpenVINO's does."""
    return bytes(ids).decode(errors="ignore")


KINDS: dict[str, Callable[[], Characters]] = {
    "replacing": lambda: Window(replacing),
    "dropping": lambda: Window(dropping),
    "bytes": lambda: Bytes({n: bytes([n]) for n in range(256)}),
}
kinds = st.sampled_from(sorted(KINDS))


def pieces(text: str, stop: tuple[str, ...] = (), step: int = 1, kind: str = "replacing") -> list[str]:
    data = text.encode()
    detokeniser = Detokeniser(KINDS[kind](), stop)
    cut = [detokeniser.push(list(data[n : n + step])) for n in range(0, len(data), step)]
    return [*cut, detokeniser.end()]


@given(st.text(), st.integers(1, 5), kinds)
def test_pieces_join_to_the_text(text: str, step: int, kind: str) -> None:
    assert "".join(pieces(text, step=step, kind=kind)) == text


@given(st.text(alphabet="aé東🙂"), kinds)
def test_no_piece_has_half_a_character(text: str, kind: str) -> None:
    given_ = [p for p in pieces(text, kind=kind) if p]
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(given_)
    assert given_ == list(text)


@given(st.text(alphabet="ab.\n"), st.text(alphabet="ab.\n", min_size=1, max_size=4), st.integers(1, 4), kinds)
def test_nothing_from_a_stop_string_on(text: str, stop: str, step: int, kind: str) -> None:
    assert "".join(pieces(text, (stop,), step, kind)) == text.partition(stop)[0]


def test_a_possible_beginning_of_a_stop_string_waits() -> None:
    assert pieces("a\nUse", ("\nUser",)) == ["a", "", "", "", "", "\nUse"]
    assert pieces("a\nUx", ("\nUser",)) == ["a", "", "", "\nUx", ""]


def test_the_first_of_several_stop_strings_counts() -> None:
    assert "".join(pieces("one two three", ("three", "two"))) == "one "


def test_bytes_that_are_no_character_do_not_wait_for_ever() -> None:
    detokeniser = Detokeniser(Window(replacing))
    given_ = "".join(detokeniser.push([0xFF]) for _ in range(8))
    assert given_ + detokeniser.end() == "\N{REPLACEMENT CHARACTER}" * 8
    assert given_ != ""


def test_the_window_stays_small() -> None:
    longest = 0

    def decode(ids: list[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return bytes(ids).decode(errors="replace")

    detokeniser = Detokeniser(Window(decode))
    assert "".join(detokeniser.push([ord("a")]) for _ in range(500)) == "a" * 500
    assert longest <= 8


def test_a_character_that_was_cut_off_is_left_out_and_tokens_without_text_too() -> None:
    detokeniser = Detokeniser(Bytes({0: b"a", 1: "é".encode()[:1]}))
    assert detokeniser.push([0, 7, 1]) + detokeniser.end() == "a"
