"""What changed from one release to another: settings, models, prompts, documents and facts."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from proveout.domain import Manifest, Release, Scope
from proveout.store.pool import Store


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of a snapshot that a scope may see, each with the digest of its content; `total` counts all."""

    digests: Mapping[str, str] = field(default_factory=dict)
    total: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs, by its dotted key; None where there is none."""

    key: str
    before: object
    after: object


@dataclass(frozen=True, slots=True)
class KnowledgeChange:
    """A corpus whose snapshot differs. `unseen` documents of either release are hidden from whoever asks."""

    name: str
    before: str | None
    after: str | None
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    unseen: int


@dataclass(frozen=True, slots=True)
class Diff:
    """Everything that differs. `prompts` holds unified diffs by prompt; `facts` do not decide answers."""

    changes: tuple[Change, ...]
    prompts: Mapping[str, str]
    knowledge: tuple[KnowledgeChange, ...]
    facts: tuple[Change, ...]


async def read_documents(store: Store, scope: Scope, *releases: Release) -> dict[tuple[str, str], Documents]:
    """The documents of every snapshot of `releases` as far as `scope` may see them, by corpus and snapshot."""
    wanted = {(use.name, use.snapshot) for release in releases for use in release.manifest.knowledge if use.snapshot}
    found: dict[tuple[str, str], Documents] = {}
    async with store.within(scope) as session:
        for name, snapshot in sorted(wanted):
            row = await session.row("snapshots.documents", workspace=scope.workspace, knowledge=name, snapshot=snapshot)
            found[name, snapshot] = Documents(row["digests"], row["total"]) if row else Documents()
    return found


def diff(before: Release, after: Release, documents: Mapping[tuple[str, str], Documents]) -> Diff:
    """Everything in which `after` differs from `before`."""
    old, new = before.manifest, after.manifest
    return Diff(
        changes=_changes(_settings(old), _settings(new)),
        prompts=_prompts(before, after),
        knowledge=tuple(_knowledge(old, new, documents)),
        facts=_changes(dict(before.facts), dict(after.facts)),
    )


def _settings(manifest: Manifest) -> dict[str, Any]:
    """The manifest without prompts and snapshots, which are compared apart; corpora by name, whatever their order."""
    plain: dict[str, Any] = msgspec.to_builtins(manifest)
    del plain["prompt"]
    corpora = plain.pop("knowledge")
    return plain | {"knowledge": {c.pop("name"): {k: v for k, v in c.items() if k != "snapshot"} for c in corpora}}


def _changes(before: dict[str, Any], after: dict[str, Any]) -> tuple[Change, ...]:
    old, new = dict(_flat(before)), dict(_flat(after))
    keys = [*old, *(key for key in new if key not in old)]
    return tuple(Change(k, old.get(k), new.get(k)) for k in keys if old.get(k) != new.get(k))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _flat(below, f"{path}.{key}" if path else key)
    elif isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        for position, item in enumerate(value):
            yield from _flat(item, f"{path}.{position}")
    else:
        yield path, value or None if isinstance(value, dict | list | tuple) else value


def _prompts(before: Release, after: Release) -> dict[str, str]:
    pairs = {
        "system": (before.manifest.prompt.system, after.manifest.prompt.system),
        "answer": (before.manifest.prompt.answer, after.manifest.prompt.answer),
    }
    return {
        name: "\n".join(
            difflib.unified_diff(
                old.splitlines(), new.splitlines(), f"{before.label} {name}", f"{after.label} {name}", lineterm=""
            )
        )
        for name, (old, new) in pairs.items()
        if old != new
    }


def _knowledge(
    old: Manifest, new: Manifest, documents: Mapping[tuple[str, str], Documents]
) -> Iterator[KnowledgeChange]:
    before = {use.name: use.snapshot for use in old.knowledge}
    after = {use.name: use.snapshot for use in new.knowledge}
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was == now:
            continue
        had = documents[name, was] if was else Documents()
        has = documents[name, now] if now else Documents()
        yield KnowledgeChange(
            name=name,
            before=was,
            after=now,
            added=tuple(sorted(has.digests.keys() - had.digests.keys())),
            removed=tuple(sorted(had.digests.keys() - has.digests.keys())),
            changed=tuple(
                sorted(d for d in had.digests.keys() & has.digests.keys() if had.digests[d] != has.digests[d])
            ),
            unseen=max(had.total - len(had.digests), has.total - len(has.digests)),
        )
