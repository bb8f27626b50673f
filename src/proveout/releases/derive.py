"""From a release to one that differs in exactly what is named: a snapshot, a model, a component switched off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from proveout.domain import Directory, KnowledgeUse, Manifest, ModelUse, Release, Scope
from proveout.engine.catalogue import Catalogue
from proveout.errors import Conflict, InvalidInput
from proveout.releases.digest import digest
from proveout.retrieval.snapshots import find
from proveout.store.events import Kind, note
from proveout.store.pool import Session, as_json

NEWEST = "latest"
_OFF = "off"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to differ.

    `latest`: every base of knowledge in its newest snapshot, every model as the catalogue has it now. `knowledge`:
    bases with the digest of a snapshot, or `latest`. `model`: the model of calls that no condition matches.
    `without`: components to switch off.
    """

    latest: bool = False
    knowledge: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    without: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """A derived release; not `created` where the app had this digest before."""

    number: int
    digest: str
    created: bool


async def derive(
    session: Session,
    scope: Scope,
    release: Release,
    wanted: Wanted,
    catalogue: Catalogue,
    directory: Directory,
    author: str | None,
) -> Made:
    """Makes the release, in the transaction of the session.

    Golden questions, scorers and facts are copied; the facts say what it was derived from. `author` None is the system:
    the release has the author of the one that it comes from. Raises InvalidInput where nothing is to differ, or what is
    named is not in the release; NotFound for a snapshot or a model that is not there; and Conflict where the release
    exists and its stages would begin to follow knowledge without a promotion.
    """
    manifest = await _changed(session, scope, release.manifest, wanted, catalogue)
    identity = {"workspace": release.workspace, "app": release.app, "digest": digest(manifest)}
    follows = sorted(use.name for use in manifest.knowledge if use.snapshot and use.name in followed_knowledge(release))
    await session.run("releases.lock", workspace=release.workspace, app=release.app)
    known = await session.row("releases.by_digest", **identity)
    if known is not None:
        there = directory.releases.get((release.workspace, release.app, known["number"]))
        if there is not None and not there.follows.issuperset(follows):
            await _let_follow(session, there, follows, directory, author)
        return Made(known["number"], identity["digest"], created=False)
    row = await session.row(
        "releases.derive", **identity, origin=release.number, manifest=as_json(manifest), author=author
    )
    assert row is not None
    about = {"app": release.app, "number": row["number"], "digest": identity["digest"]}
    told = {"from": release.number, "changes": _changes(release.manifest, manifest)}
    facts = {**release.facts, "derived": told, "follows": follows}
    where = {"workspace": release.workspace, "app": release.app, "number": row["number"]}
    await session.run("facts.put", **where, facts=as_json(facts))
    await note(session, release.workspace, Kind.FACTS_RECORDED, author or scope.principal, about)
    await note(session, release.workspace, Kind.RELEASE_CREATED, author or scope.principal, {**about, **told})
    return Made(row["number"], identity["digest"], created=True)


def followed_knowledge(release: Release) -> frozenset[str]:
    """The names of the knowledge that a release follows: unpinned, or pinned and moved on by refreshes."""
    return release.follows | {use.name for use in release.manifest.knowledge if not use.snapshot}


def components(manifest: Manifest) -> list[str]:
    """What of a release can be switched off."""
    found = ["fallback"] if manifest.fallback else []
    if manifest.otherwise != "flag":
        found.append("grounding")
    return found + [f"knowledge.{use.name}" for use in manifest.knowledge]


async def _let_follow(
    session: Session, release: Release, follows: Sequence[str], directory: Directory, author: str | None
) -> None:
    """Adds `follows` to an existing release. Raises Conflict while it serves a gated stage."""
    stages = [stage for stage in directory.stages_of(release) if stage != "poc"]
    if stages:
        raise Conflict(
            f"{release.label} is this release already; it serves {' and '.join(stages)} and follows nothing there. "
            f"Derive again once the knowledge has a newer snapshot, and promote that."
        )
    where = {"workspace": release.workspace, "app": release.app, "number": release.number}
    facts = {**release.facts, "follows": sorted(release.follows.union(follows))}
    if await session.run("facts.put", **where, facts=as_json(facts)):
        about = {"app": release.app, "number": release.number, "digest": release.digest}
        await note(session, release.workspace, Kind.FACTS_RECORDED, author or "system", about)


async def _changed(
    session: Session, scope: Scope, manifest: Manifest, wanted: Wanted, catalogue: Catalogue
) -> Manifest:
    _check(manifest, wanted)
    if wanted.latest:
        manifest = replace(
            manifest,
            model=tuple(replace(choice, use=catalogue.use(choice.use.name)) for choice in manifest.model),
            fallback=tuple(catalogue.use(use.name) for use in manifest.fallback),
        )
    if wanted.model:
        default = replace(manifest.model[-1], use=catalogue.use(wanted.model))
        manifest = replace(manifest, model=(*manifest.model[:-1], default))
    if "fallback" in wanted.without:
        manifest = replace(manifest, fallback=())
    if "grounding" in wanted.without:
        manifest = replace(manifest, otherwise="flag")
    uses = [use for use in manifest.knowledge if f"knowledge.{use.name}" not in wanted.without]
    pinned = [await _pinned(session, scope, use, wanted) for use in uses]
    return replace(manifest, knowledge=tuple(pinned))


async def _pinned(session: Session, scope: Scope, use: KnowledgeUse, wanted: Wanted) -> KnowledgeUse:
    asked = wanted.knowledge.get(use.name, NEWEST if wanted.latest else "")
    if not asked:
        return use
    found = await find(session, scope, use.name, None if asked == NEWEST else asked)
    return replace(use, snapshot=found["digest"])


def _check(manifest: Manifest, wanted: Wanted) -> None:
    bases, parts = [use.name for use in manifest.knowledge], components(manifest)
    for given, known, what in ((wanted.knowledge, bases, "knowledge"), (wanted.without, parts, "without")):
        for name in given:
            if name not in known:
                raise InvalidInput(f"{what}: there is no {name!r} in this release; there are: {_listed(known)}.")
    if not (wanted.latest or wanted.knowledge or wanted.model or wanted.without):
        raise InvalidInput(
            f"Say what is to differ: the latest of everything, knowledge ({_listed(bases)}), another model, or a "
            f"component to do without ({_listed(parts)})."
        )


def _changes(before: Manifest, after: Manifest) -> dict[str, Any]:
    """What differs, by the name of what was changed."""
    new = {use.name: use.snapshot for use in after.knowledge}
    changes = {
        f"knowledge.{use.name}": new.get(use.name, _OFF)
        for use in before.knowledge
        if new.get(use.name) != use.snapshot
    }
    if before.otherwise != after.otherwise:
        changes["grounding"] = _OFF
    if before.fallback and not after.fallback:
        changes["fallback"] = _OFF
    return changes | {f"model.{use.name}": use.digest for use in _models(after) if use not in _models(before)}


def _models(manifest: Manifest) -> list[ModelUse]:
    return [*(choice.use for choice in manifest.model), *manifest.fallback]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
