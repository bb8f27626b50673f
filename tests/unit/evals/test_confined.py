"""Scorers that come with an app: what they may answer, and what they may not do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proveout.domain import Outcome
from proveout.errors import InvalidInput
from proveout.evals.cases import Case
from proveout.evals.scorers import scorers
from proveout.evals.scorers.confined import Confined, Custom, ScorerFailed, custom_scorers
from proveout.evals.scorers.delivered import Delivered
from proveout.evals.scorers.words import Regex

FILE = "evals/scorers.py"
CODE = '''"""Ours."""
import os, statistics, sys
import collections, csv, datetime, decimal, difflib, fractions, hashlib, heapq, itertools, json, math, random, re
import string, textwrap, typing, unicodedata


def polite(case, delivered) -> bool:
    print("this goes nowhere")
    return "please" in delivered["text"]


def brief(case, delivered):
    return 1 / statistics.mean([len(delivered["text"].split())])


def silent(case, delivered):
    return None


def too_much(case, delivered):
    return 7


def wrong(case, delivered):
    return case["nothing"]


def leaves(case, delivered):
    raise SystemExit


def endless(case, delivered):
    while True:
        pass


def greedy(case, delivered):
    return bool("x" * 10**9)


def secrets(case, delivered):
    return float(bool(set(os.environ) - {"LC_CTYPE"}))


def reads(case, delivered):
    return len(open("/proc/self/environ").read())


def writes(case, delivered):
    open("PLACE", "w")


def removes(case, delivered):
    os.remove("PLACE")


def calls(case, delivered):
    import socket
    socket.create_connection(("127.0.0.1", 9))


def starts(case, delivered):
    os.system("true")


def spawns(case, delivered):
    import subprocess
    subprocess.run(["true"])


def foreign(case, delivered):
    import ctypes


def forks(case, delivered):
    import _posixsubprocess


def begins_anew(case, delivered):
    import _xxsubinterpreters


def persuades(case, delivered):
    import __main__, builtins
    __main__._EVENTS = __main__._COMPILED = "open"
    os.path.normpath = lambda path: os.__file__
    builtins.PermissionError = ValueError
    return len(open("/etc/hostname").read())


class Path_(str):
    def startswith(self, *a):
        return True


def pretends(case, delivered):
    return len(open(Path_("/etc/hostname")).read())


def climbs(case, delivered):
    return len(open(os.path.dirname(os.__file__) + "/../../../../../../../etc/hostname").read())


def catches(case, delivered):
    try:
        open("/etc/hostname")
    except PermissionError as error:
        frame = error.__traceback__.tb_next.tb_frame
        frame.f_locals["readable"] = ("/",)
    return len(open("/etc/hostname").read())


def raises_limits(case, delivered):
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (1, 1))


def imports(case, delivered):
    import proveout


def _helper(a):
    return a
'''
CASE = Case("a", "q", facts=["f"])


def run(name: str, text: str = "please wait", code: str = CODE) -> float | None:
    async def call() -> float | None:
        async with Confined(code, FILE, seconds=1) as child:
            return await Custom(name, "unit", child).score(CASE, Delivered(text, Outcome.ANSWERED))

    return asyncio.run(call())


def test_scorers_are_found_without_running_them() -> None:
    kinds = custom_scorers(CODE, FILE)
    assert kinds["polite"] == "binary" and kinds["brief"] == "unit" and "_helper" not in kinds
    for code, message in (
        ("def f(:", "scorers.py:1"),
        ("x = 1", "declares no scorer"),
        ("\ndef f(a): pass", "scorers.py:2: f"),
        ("def f(case, delivered): return 1\nasync def g(case, delivered): return 1", "scorers.py:2: g: .* not `async"),
    ):
        with pytest.raises(InvalidInput, match=message):
            custom_scorers(code, FILE)


def test_an_app_brings_its_own_and_replaces_none() -> None:
    own = scorers(custom=Confined(CODE, FILE))
    assert own["polite"].kind == "binary" and {"correct", "brief"} <= own.keys()
    for name in ("correct", "toxicity"):
        with pytest.raises(InvalidInput, match=f"{name} is the name of a built-in scorer"):
            scorers(custom=Confined(f"def {name}(case, delivered): return 1", FILE))


def test_what_a_scorer_may_answer() -> None:
    assert run("polite") == 1.0 and run("polite", "wait") == 0.0
    assert run("brief") == 0.5
    assert run("silent") is None
    assert run("secrets") == 0.0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("too_much", "7, which is no number from 0 to 1"),
        ("wrong", "scorers.py:25: KeyError"),
        ("leaves", "ended without an answer"),
        ("endless", "longer than 1 s"),
        ("greedy", "MemoryError"),
        ("reads", "no right to open"),
        ("writes", "no right to open"),
        ("removes", "no right to os.remove"),
        ("calls", "no right to import"),
        ("starts", "no right to os.system"),
        ("spawns", "no right to import"),
        ("foreign", "no right to import"),
        ("forks", "no right to import"),
        ("begins_anew", "no right to import"),
        ("persuades", "no right to open"),
        ("pretends", "no right to open"),
        ("climbs", "no right to open"),
        ("catches", "no right to open"),
        ("raises_limits", "no right to resource"),
        ("imports", "ModuleNotFoundError"),
    ],
)
def test_what_a_scorer_may_not_do(name: str, message: str, tmp_path: Path) -> None:
    place = tmp_path / "kept"
    place.write_text("kept")
    with pytest.raises(ScorerFailed, match=message):
        run(name, code=CODE.replace("PLACE", str(place)))
    assert place.read_text() == "kept"


def test_a_file_that_fails_says_where() -> None:
    with pytest.raises(ScorerFailed, match=r"scorers\.py:2: ZeroDivisionError"):
        run("f", code="def f(case, delivered): return 1\n1 / 0\n")


def test_the_next_call_after_a_failure_is_answered() -> None:
    async def calls() -> list[float | None]:
        async with Confined(CODE, FILE, seconds=0.5) as child:
            said = []
            for name in ("wrong", "polite", "endless", "polite", "leaves", "polite"):
                try:
                    said.append(await child.call(name, {}, {"text": "please"}))
                except ScorerFailed:
                    said.append(None)
            said += await asyncio.gather(*(child.call("brief", {}, {"text": "w " * n}) for n in (1, 2, 4)))
            return said

    assert asyncio.run(calls()) == [None, 1.0, None, 1.0, None, 1.0, 1.0, 0.5, 0.25]


def test_a_pattern_that_takes_for_ever_is_given_up() -> None:
    case = Case("a", "q", regex="(a+)+$")
    with pytest.raises(ScorerFailed, match=r"a: regex: '\(a\+\)\+\$'"):
        asyncio.run(Regex().score(case, Delivered("a" * 40 + "b", Outcome.ANSWERED)))
