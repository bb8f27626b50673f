"""The stage policies: which evidence a release must have to enter a stage. Data in files, read once at the start."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import yaml

from proveout.domain import Basis
from proveout.errors import StartRefused

MARGIN = 0.05  # points of a score, that still count as no worse
_SHIPPED = "stages.yaml"
GatedStage = Literal["beta", "production"]
Figure = Literal["lost", "unread", "empty", "duplicates", "widened"]
"""What a data test looks at, as a share of documents: `releases/refresh.py` says of which."""


class Criterion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One demand on a release, of exactly one of four sorts: evidence of a kind, a stage before, approvals, or that its
    knowledge is pinned.

    Evidence counts when its newest of the kind (and basis, if one is given) says `pass`, is younger than
    `max_age_days` and has not expired. Approvals are by holders of different keys, none of them the author.
    """

    id: Annotated[str, msgspec.Meta(min_length=1)]
    reason: Annotated[str, msgspec.Meta(min_length=1)]
    source: Annotated[str, msgspec.Meta(min_length=1)]
    evidence: str | None = None
    basis: Basis | None = None
    max_age_days: float | None = None
    stable_in: GatedStage | None = None
    approvals: int = 0
    pinned: bool = False

    def __post_init__(self) -> None:
        sorts = (self.evidence is not None, self.stable_in is not None, self.approvals > 0, self.pinned)
        if sorts.count(True) != 1:
            raise ValueError("a criterion demands one of: evidence, stable_in, approvals, pinned")


class Bound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How large a share of documents a data test of a new snapshot may find, from 0 to 1."""

    id: Annotated[str, msgspec.Meta(min_length=1)]
    figure: Figure
    most: Annotated[float, msgspec.Meta(ge=0, le=1)]
    reason: Annotated[str, msgspec.Meta(min_length=1)]
    source: Annotated[str, msgspec.Meta(min_length=1)]


class RefreshPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The data tests of followed knowledge, and what admits a release that differs in its snapshots alone.

    Without criteria nothing is admitted, and no stage follows. `margin`: how much worse a score may be and still count
    as no worse.
    """

    tests: tuple[Bound, ...] = ()
    criteria: tuple[Criterion, ...] = ()
    margin: Annotated[float, msgspec.Meta(gt=0, lt=1)] = MARGIN


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The criteria of each stage, the targets of apps that set none, and how stages follow knowledge."""

    stages: Mapping[GatedStage, tuple[Criterion, ...]]
    targets: Mapping[str, str] = {}
    refresh: RefreshPolicy = RefreshPolicy()
    schema: Literal[1] = 1

    def __post_init__(self) -> None:
        ids = [criterion.id for criteria in self.stages.values() for criterion in criteria]
        ids += [bound.id for bound in self.refresh.tests] + [criterion.id for criterion in self.refresh.criteria]
        if len(set(ids)) < len(ids):
            raise ValueError("every criterion has an id of its own")
        if set(self.stages) != {"beta", "production"}:
            raise ValueError("say what `beta` and what `production` demand: a stage that is left out has no gate")


def read_policy(file: Path | None) -> Policy:
    """The policy of `file`, or the one that ships with the program. Raises StartRefused saying what is wrong."""
    try:
        text = (file or files(__package__) / _SHIPPED).read_text(encoding="utf-8")
        return msgspec.convert(yaml.safe_load(text), Policy)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise StartRefused(f"stages: {file or _SHIPPED} is no policy of stages: {error}.") from error
