"""The one way text is cut: words, stems, numbers and sentences.

Search, quotes and the support check must agree on what a word is, so all of them come here.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import snowballstemmer

_WORD = re.compile(r"\d+(?:[.,:]\d+)*[^\W_]*|[^\W\d_][^\W_]*(?:['’][^\W\d_]+)?")
_STOP_WORDS = """
a about above after again against all also am an and any are aren't as at be because been before being below
between both but by can can't cannot could couldn't did didn't do does doesn't doing don't down during each few for
from further had hadn't has hasn't have haven't having he her here hers herself him himself his how i i'm i've if
in into is isn't it it's its itself just let's may me might more most must my myself of off on once only or other
our ours ourselves out over own per please shall she should so some such than that that's the their theirs them
themselves then there these they this those through to too under until up us very was wasn't we were weren't what
what's when where which while who whom whose why will with won't would you you're your yours yourself yourselves
"""
_STOP = frozenset(_STOP_WORDS.split())

_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_SPELLED = {w: n for n, w in enumerate((_UNITS + " seventeen eighteen nineteen").split())}
_TEN_NAMES = "twenty thirty forty fifty sixty seventy eighty ninety"
_TENS = {w: 10 * n for n, w in enumerate(_TEN_NAMES.split(), 2)}
_CURRENCIES = {
    "$": "usd", "usd": "usd", "dollar": "usd", "dollars": "usd",
    "€": "eur", "eur": "eur", "euro": "eur", "euros": "eur",
    "£": "gbp", "gbp": "gbp", "pound": "gbp", "pounds": "gbp",
    "zł": "pln", "pln": "pln", "zloty": "pln", "złoty": "pln",
}  # fmt: skip
_SPELLED_NUMBER = re.compile(
    rf"\b(?:({'|'.join(_TENS)})(?:[-\s]({'|'.join(list(_SPELLED)[1:10])}))?|({'|'.join(_SPELLED)}))\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"(?P<before>[$€£]|\b(?:usd|eur|gbp|pln)\s?)?\s?(?<![\w.,])(?P<value>\d+(?:[.,:]\d+)*)(?P<kilo>k\b)?"
    r"(?P<after>\s?(?:%|per\s?cent\b|percent\b|€|\$|£|zł\b|[a-zł]+\b))?",
    re.IGNORECASE,
)


def words(text: str) -> list[str]:
    """Lower-cased words and numbers in order; a number keeps its separators (`1,250.50`, `9:30`)."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower().replace("’", "'"))


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """Snowball's English stem. A stemmer holds state, so each miss builds its own: safe in threads."""
    return str(snowballstemmer.stemmer("english").stemWord(word))


def content_words(text: str) -> list[str]:
    """Stems in order without stop words; thousands separators are dropped from numbers."""
    return [_plain(w) if w[0].isdigit() else stem(w) for w in words(text) if w not in _STOP]


def numbers(text: str) -> set[str]:
    """The numbers that stand in a text, spelled-out ones up to 99 too, in one notation.

    A number with a percent sign or a currency gives two entries (`25` and `25%`, `80` and `80 eur`),
    so that "every number of A stands in B" is `numbers(A) <= numbers(B)`.
    A spelled-out "one" is mostly a pronoun and never counts.
    """
    text = _SPELLED_NUMBER.sub(_digits, unicodedata.normalize("NFKC", text))
    found = set()
    for match in _NUMBER.finditer(text):
        value = _plain(match["value"])
        if match["kilo"]:
            value = _plain(f"{float(value) * 1000:.2f}") if value.count(".") <= 1 and ":" not in value else value
        found.add(value)
        after = (match["after"] or "").strip().lower()
        if after == "%" or after.startswith(("percent", "per cent")) or after == "per cent":
            found.add(f"{value}%")
        currency = _CURRENCIES.get((match["before"] or "").strip().lower()) or _CURRENCIES.get(after)
        if currency:
            found.add(f"{value} {currency}")
    return found


def _digits(match: re.Match[str]) -> str:
    tens, ones, small = (g.lower() if g else None for g in match.groups())
    if small == "one":
        return match[0]
    return str(_SPELLED[small] if small else _TENS[tens or ""] + (_SPELLED[ones] if ones else 0))


def _plain(number: str) -> str:
    """`1,250.50` -> `1250.5`, `007` -> `7`; what is not one decimal number only loses its commas."""
    number = re.sub(r",(?=\d{3}(?!\d))", "", number)
    if re.fullmatch(r"\d+\.\d+", number):
        number = number.rstrip("0").rstrip(".")
    return number.lstrip("0") or "0"


# -- sentences ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sentence:
    """A unit of text that can stand alone: `text == source[start:end]`, without surrounding space."""

    start: int
    end: int
    text: str


_LOOKAHEAD = 5  # characters after a possible cut that decide it
# The lookbehinds keep long runs of dots or spaces linear.
_CUT = re.compile(r"(?<![.!?…])[.!?…]+[\"'”’)\]*_]*[ \t]+|(?<![ \t])[ \t]*\n\s*")
_MARKER = re.compile(r"[-*+•‣◦▪–][ \t]|\d{1,2}[.)][ \t]|[a-z]\)[ \t]|#{1,4}|\|")
_OPENER = re.compile(r"[\"'“‘(\[*_]*[^\W_a-z]|[-*•]\s")
_ABBREVIATIONS = """
mr mrs ms dr prof st vs e.g i.e cf fig sec approx incl excl max min tel ext dept hr hrs est gen rev
"""
_NEVER_LAST = frozenset(_ABBREVIATIONS.split())
_NUMBERED = """
no nos art p pp vol ch para eq jan feb mar apr jun jul aug sep sept oct nov dec
"""
_BEFORE_NUMBER = frozenset(_NUMBERED.split())
_SOFT_WRAP = 45  # a line at least this long, without an end mark, was wrapped by an editor


def sentences(text: str) -> list[Sentence]:
    """The sentences of a text with their offsets; bullets, table rows and headings are their own units."""
    found = []
    start = 0
    for end in [*_cuts(text), len(text)]:
        piece = text[start:end]
        if stripped := piece.strip():
            first = start + piece.index(stripped[0])
            found.append(Sentence(first, first + len(stripped), stripped))
        start = end
    return found


def _cuts(text: str, column: int = 0) -> list[int]:
    """Offsets at which a new sentence starts; `column`: how far into its line the text starts."""
    cuts = [0]
    for match in _CUT.finditer(text):
        if match.end() < len(text):
            line_start = text.rfind("\n", 0, match.start()) + 1
            width = match.start() - line_start + (column if line_start == 0 else 0)
            if _ends_here(text[max(cuts[-1], line_start) : match.start()], width, text, match):
                cuts.append(match.end())
    return cuts[1:]


def _ends_here(line: str, width: int, text: str, match: re.Match[str]) -> bool:
    """`line`: the sentence so far, at most from the start of its line, which is `width` characters long."""
    following = text[match.end() : match.end() + _LOOKAHEAD]
    if "\n" in match[0]:
        if match[0].count("\n") > 1 or _MARKER.match(following):
            return True
        if _MARKER.match(line.lstrip()):
            return not (width >= _SOFT_WRAP and following[:1].islower())
        return width < _SOFT_WRAP or text[match.start() - 1 : match.start()] in ".!?…:;|"
    if match[0][0] != ".":
        return bool(_OPENER.match(following))
    last = line.rsplit(None, 1)[-1].lstrip("(\"'“‘[").lower() if line.strip() else ""
    if last in _NEVER_LAST or re.fullmatch(r"\s*\d{1,2}", line) or re.fullmatch(r"[^\W\d_]", last):
        return False
    if last in _BEFORE_NUMBER and following[:1].isdigit():
        return False
    return bool(_OPENER.match(following))


class SentenceStream:
    """Cuts a stream into sentences: what comes out, joined, is byte for byte what went in.

    A sentence is given out as soon as the characters after it show that it ended.
    """

    def __init__(self) -> None:
        self._held = ""
        self._column = 0

    def feed(self, text: str) -> list[str]:
        """The sentences completed by this piece, each with the space that follows it."""
        self._held += text
        certain = len(self._held) - _LOOKAHEAD
        return self._give([cut for cut in _cuts(self._held, self._column) if cut <= certain])

    def close(self) -> list[str]:
        """What is left, cut into sentences."""
        pieces = self._give(_cuts(self._held, self._column))
        rest = self._held
        self._held, self._column = "", 0
        return [*pieces, rest] if rest else pieces

    def _give(self, cuts: list[int]) -> list[str]:
        pieces = [self._held[a:b] for a, b in zip([0, *cuts], cuts, strict=False)]
        given = "".join(pieces)
        newline = given.rfind("\n")
        self._column = len(given) - newline - 1 if newline >= 0 else self._column + len(given)
        self._held = self._held[len(given) :]
        return pieces
