"""What a newer snapshot is tested for, which questions are asked, and which release counts as the same but for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proveout.domain import KnowledgeUse, Manifest, ModelChoice, ModelUse, Parameters, PromptTexts
from proveout.evals.cases import Case
from proveout.evals.compare import compare
from proveout.evals.scorers import scorers
from proveout.releases.gate import refreshes
from proveout.releases.measure import metrics_of
from proveout.releases.policy import read_policy
from proveout.releases.refresh import Snapshot, draw, figures, run_data_tests

ALL, HR = ("everyone",), ("group:hr",)
BEFORE = Snapshot(10, 0, {f"d{n}": (f"digest {n}", 3, ALL if n else HR) for n in range(10)})


def after(unread: int = 0, **documents: tuple[str, int, tuple[str, ...]] | None) -> Snapshot:
    members = {name: one for name, one in {**BEFORE.members, **documents}.items() if one is not None}
    return Snapshot(len(members), unread, members)


def failed(before: Snapshot, now: Snapshot) -> set[str]:
    return {test["figure"] for test in run_data_tests(figures(before, now), TESTS) if test["verdict"] == "fail"}


TESTS = read_policy(None).refresh.tests


def test_a_sound_snapshot_passes() -> None:
    assert not failed(BEFORE, BEFORE)
    assert not failed(BEFORE, after(d1=None, d3=("changed", 9, ALL), new=("new", 1, ALL)))


def test_each_figure_has_its_bound() -> None:
    assert failed(BEFORE, after(d1=None, d2=None)) == {"lost"}
    assert failed(BEFORE, after(unread=1)) == {"unread"}
    assert failed(BEFORE, after(d1=("digest 1", 0, ALL))) == {"empty"}
    assert failed(BEFORE, after(a=("digest 1", 3, ALL), b=("digest 1", 3, ALL))) == {"duplicates"}
    assert failed(BEFORE, after(d0=("digest 0", 3, (*HR, "group:it")))) == {"widened"}
    assert not failed(BEFORE, after(d1=("digest 1", 3, HR))), "fewer readers are nobody's loss of secrets"
    assert figures(BEFORE, after(d1=None, d2=None))["lost"] == 0.2


def test_documents_that_were_deleted_from_both_are_lost() -> None:
    kept = after(d1=None, d2=None)
    assert failed(replace_members(BEFORE, kept), kept) == {"lost"}, "a deletion reaches the older snapshot too"


def replace_members(snapshot: Snapshot, other: Snapshot) -> Snapshot:
    return Snapshot(snapshot.documents, snapshot.unread, other.members)


def test_what_was_wrong_before_holds_nothing_up() -> None:
    old = Snapshot(4, 4, {f"d{n}": ("the same", 0, ALL) for n in range(4)})
    assert not failed(old, old)
    assert not failed(Snapshot(0, 0, {}), after())


cases = st.lists(
    st.builds(
        Case,
        id=st.uuids().map(str),
        question=st.just("q"),
        tags=st.lists(st.sampled_from(["leave", "pay", "travel"]), max_size=1),
        unanswerable=st.booleans(),
    ),
    max_size=300,
    unique_by=lambda case: case.id,
)


@given(cases, st.randoms(use_true_random=False))
def test_questions_are_drawn_by_their_ids_from_every_kind(given: list[Case], random: object) -> None:
    drawn = draw(given)
    assert len(drawn) == min(len(given), 120) and len({case.id for case in drawn}) == len(drawn)
    random.shuffle(given)  # type: ignore[attr-defined]
    assert draw(given) == drawn

    def kinds(some: list[Case]) -> dict[tuple[object, ...], int]:
        found: dict[tuple[object, ...], int] = {}
        for case in some:
            found[case.unanswerable, *case.tags] = found.get((case.unanswerable, *case.tags), 0) + 1
        return found

    every, taken = kinds(given), kinds(drawn)
    for kind, count in every.items():
        assert taken.get(kind, 0) >= 1 and abs(taken[kind] - count * len(drawn) / len(given)) <= 2


MANIFEST = Manifest(
    "desk",
    (ModelChoice(ModelUse("echo", "1")),),
    (ModelUse("up/x", "2"),),
    Parameters(),
    PromptTexts("s", "a"),
    (KnowledgeUse("handbook", "sha256:1"), KnowledgeUse("law", "sha256:2")),
    "quote",
)


def with_uses(*uses: KnowledgeUse) -> Manifest:
    return replace(MANIFEST, knowledge=uses)


def test_only_snapshots_of_what_is_followed_may_differ() -> None:
    handbook, law = MANIFEST.knowledge
    newer = with_uses(replace(handbook, snapshot="sha256:9"), law)
    assert refreshes(newer, MANIFEST, {"handbook"}) and refreshes(newer, MANIFEST, {"handbook", "law"})
    assert not refreshes(newer, MANIFEST, set()) and not refreshes(newer, MANIFEST, {"law"})
    assert not refreshes(MANIFEST, MANIFEST, {"handbook"}), "the same release is no refresh"
    others = [
        replace(newer, app="other"),
        replace(newer, model=(ModelChoice(ModelUse("echo", "2")),)),
        replace(newer, fallback=()),
        replace(newer, parameters=Parameters(temperature=1)),
        replace(newer, prompt=PromptTexts("s", "b")),
        replace(newer, otherwise="flag"),
        with_uses(replace(handbook, snapshot="sha256:9", top_k=7), law),
        with_uses(replace(handbook, snapshot="sha256:9"), replace(law, snapshot="sha256:9")),
        with_uses(replace(handbook, snapshot=""), law),
        with_uses(replace(handbook, snapshot="sha256:9")),
        with_uses(replace(handbook, snapshot="sha256:9"), law, KnowledgeUse("more", "sha256:3")),
    ]
    assert not any(refreshes(other, MANIFEST, {"handbook"}) for other in others)


@pytest.mark.parametrize(("margin", "enough"), [(0.05, 72), (0.1, 36)])
def test_a_policys_margin_says_how_many_questions_it_takes(tmp_path: Path, margin: float, enough: int) -> None:
    file = tmp_path / "stages.yaml"
    file.write_text(f"stages: {{beta: [], production: []}}\nrefresh: {{margin: {margin}}}\n")
    metrics = metrics_of(["correct"], scorers(), set(), read_policy(file).refresh.margin)
    for n, verdict in ((enough - 1, "inconclusive"), (enough, "pass")):
        same = {"correct": {str(case): [1.0] for case in range(n)}}
        assert compare(same, same, {}, metrics).verdict == verdict
