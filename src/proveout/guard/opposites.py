"""Words that turn a statement round when one stands for the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from proveout.language import stem

_PAIRS = """
able unable, above below, above beneath, accept reject, active passive, admit deny, advanced basic, advantage
disadvantage, affordable expensive, agree disagree, all none, allow forbid, allow prohibit, allowed forbidden,
allowed prohibited, always never, annual monthly, appear disappear, approve deny, approve reject, arrive leave,
attend skip, automatic manual, before after, begin end, benefit drawback, best worst, better worse, big small, broad
narrow, build destroy, buy sell, buyer seller, certain uncertain, cheap expensive, clear unclear, common rare,
complimentary paid, confident doubtful, confirm deny, connect disconnect, correct incorrect, create destroy, daily
weekly, day night, deep shallow, direct indirect, earlier later, early late, easy difficult, easy hard, effective
ineffective, efficient inefficient, elderly young, employer employee, enable disable, enable prevent, encourage
discourage, enter exit, everyone nobody, exclusive shared, expand shrink, explicit implicit, fast slow, first last,
flexible rigid, free paid, frequent rare, front back, full empty, gain lose, general specific, give take, global
local, good bad, grow shrink, happy unhappy, he she, heavy light, high low, higher lower, highest lowest, him her,
his her, hot cold, improve worsen, include exclude, increase decrease, increase reduce, inside outside, internal
external, known unknown, lack presence, large small, least most, left right, legal illegal, lend borrow, like
dislike, likely unlikely, limited unlimited, limited wide, linear nonlinear, live recorded, long short, longer
shorter, love hate, major minor, majority minority, male female, man woman, many few, maximize minimize, maximum
minimum, men women, minimum maximum, more fewer, more less, morning evening, most few, most least, new old, newest
oldest, often rarely, old young, online offline, open close, optimistic pessimistic, optional mandatory, optional
required, outperform underperform, over under, paid unpaid, positive negative, possible impossible, premium basic,
presence absence, primary secondary, protect expose, public private, quick slow, raise lower, remember forget,
remote local, respect disrespect, rich poor, right wrong, rise fall, safe dangerous, same different, satisfied
dissatisfied, save spend, save waste, send receive, senior junior, similar different, simple complex, simple
complicated, simple difficult, solution problem, some all, some most, start end, static dynamic, strength weakness,
strong weak, succeed fail, success fail, success failure, summer winter, superior inferior, supervised unsupervised,
support oppose, temporary permanent, thick thin, top bottom, traditional modern, transparent opaque, true false,
trust distrust, unique ordinary, upgrade downgrade, usually rarely, warm cold, weekly monthly, wide narrow, win
lose, with without
"""
_PREFIXES = ("un", "in", "im", "dis", "non", "ir", "il", "mis")
_ROOT = 5  # letters of a stem that a prefix may turn round: "form" and "inform" are no opposites


def _table() -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for pair in _PAIRS.replace("\n", " ").split(","):
        one, other = map(stem, pair.split())
        found[one].add(other)
        found[other].add(one)
    return {word: frozenset(others) for word, others in found.items()}


_TABLE = _table()


def opposites(word: str) -> frozenset[str]:
    """The stems that say the opposite of a stem: those of the table, and those that a prefix makes."""
    made = {prefix + word for prefix in _PREFIXES if len(word) >= _ROOT}
    made |= {word.removeprefix(p) for p in _PREFIXES if word.startswith(p) and len(word) >= len(p) + _ROOT}
    return _TABLE.get(word, frozenset()) | made
