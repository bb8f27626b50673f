"""From an uploaded app folder to a release: read, ingest its knowledge, resolve, digest, number."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import msgspec

from proveout.domain import KnowledgeUse, Manifest, ModelChoice, Parameters, Scope, When
from proveout.engine.catalogue import Catalogue
from proveout.errors import InvalidInput, NotFound, ProveoutError
from proveout.evals.cases import read_cases
from proveout.jobs.runtime import Result, Steps
from proveout.releases import evidence
from proveout.releases.bundle import unpack
from proveout.releases.digest import digest
from proveout.releases.manifest import FILE, App, WhenPart, read_app
from proveout.retrieval.ingest import Ingester
from proveout.retrieval.snapshots import find
from proveout.store.events import Kind, note
from proveout.store.pool import Store, as_json
from proveout.store.sealing import Keyring, seal, unseal

_TOLD = 500  # characters of an error that the log gets


class CreateRelease:
    """The job `create-release`: given a bundle's id and the app's name, it answers with the release.

    `{app, number, digest, created, updated, problems}`. `updated`: the release was there before, and has the folder's
    facts, golden questions, scorers and judge now.
    """

    def __init__(self, store: Store, keyring: Keyring, ingester: Ingester, catalogue: Catalogue) -> None:
        self._store = store
        self._keyring = keyring
        self._ingester = ingester
        self._catalogue = catalogue

    async def __call__(self, steps: Steps, bundle: str, name: str) -> Result:
        return await then_forget(self._store, steps, bundle, self._make(steps, bundle, name))

    async def _make(self, steps: Steps, bundle: str, name: str) -> Result:
        app = await self._read(steps, bundle)
        if app.declared.app != name:
            raise InvalidInput(f"{FILE} declares the app {app.declared.app!r}, not {name!r}: name the same.")
        resolve(app, self._catalogue, {})  # an unknown model is said before the long work, not after it
        if judge := app.declared.evals.judge:
            self._catalogue.resolve(judge.model)
        snapshots: dict[str, str] = {}
        problems: list[dict[str, str]] = []
        for part in app.declared.knowledge:
            if part.source is None:
                snapshots[part.name] = await steps.run("find", self._pushed, steps, part.name)
                continue
            made = await self._ingester.folder(steps, part.name, app.sources[part.name], part.readers)
            snapshots[part.name] = made.digest
            problems += [{"knowledge": part.name, **problem} for problem in made.problems]
        return await steps.run("insert", self._insert, steps, bundle, snapshots, problems)

    async def _pushed(self, steps: Steps, knowledge: str) -> str:
        """The snapshot of a base that is filled by pushes, as it is searched now."""
        async with self._store.within(steps.scope) as session:
            try:
                return str((await find(session, steps.scope, knowledge, None))["digest"])
            except NotFound as error:
                raise InvalidInput(
                    f"knowledge {knowledge} has no source and no document was pushed to it: name a folder as its "
                    f"source, or push documents first."
                ) from error

    async def _read(self, steps: Steps, bundle: str) -> App:
        app = await read_bundle(self._store, self._keyring, steps.scope, bundle)
        _facts(app)  # mistakes in the golden questions are said before the long work
        return app

    async def _insert(
        self, steps: Steps, bundle: str, snapshots: dict[str, str], problems: list[dict[str, str]]
    ) -> dict[str, Any]:
        app = await self._read(steps, bundle)
        manifest = resolve(app, self._catalogue, snapshots)
        identity = {"workspace": steps.scope.workspace, "app": manifest.app, "digest": digest(manifest)}
        async with self._store.within(steps.scope) as session:
            key = await self._keyring.workspace(session, steps.scope.workspace)
            uploaded = await session.row("bundles.get", id=bundle)
            author = uploaded["author"] if uploaded else steps.scope.principal
            await session.run("releases.lock", workspace=identity["workspace"], app=manifest.app)
            known = await session.row("releases.by_digest", **identity)
            asked = {
                "golden": seal(key, app.golden.encode(), "golden"),
                "scorers": seal(key, app.scorers.encode(), "scorers") if app.scorers else None,
                "judge": seal(key, msgspec.json.encode(app.judge), "judge") if app.judge else None,
            }
            new = {**identity, **asked, "manifest": as_json(manifest), "author": author}
            row = known or await session.row("releases.insert", **new)
            assert row is not None
            where = {"workspace": identity["workspace"], "app": manifest.app, "number": row["number"]}
            about = {"app": manifest.app, "number": row["number"], "digest": identity["digest"]}
            updated = bool(await session.run("facts.put", **where, facts=as_json(_facts(app))))
            if updated:
                await session.run("releases.set_golden", **where, **asked)
                await note(session, steps.scope.workspace, Kind.FACTS_RECORDED, author, about)
            if known is None:
                await note(session, steps.scope.workspace, Kind.RELEASE_CREATED, author, about)
        return {
            "app": manifest.app,
            "number": row["number"],
            "digest": identity["digest"],
            "created": known is None,
            "updated": known is not None and updated,
            "problems": problems,
        }


class Sync:
    """The job `sync`: given a bundle's id and a knowledge's name, `{knowledge, snapshot, documents, problems}`.

    The knowledge's newest snapshot becomes that of the folder, and no release is made.
    """

    def __init__(self, store: Store, keyring: Keyring, ingester: Ingester) -> None:
        self._store = store
        self._keyring = keyring
        self._ingester = ingester

    async def __call__(self, steps: Steps, bundle: str, knowledge: str) -> Result:
        try:
            return await then_forget(self._store, steps, bundle, self._sync(steps, bundle, knowledge))
        except ProveoutError as error:
            await steps.run("note the failure", self._failed, steps.scope, knowledge, error)
            raise

    async def _failed(self, scope: Scope, knowledge: str, error: ProveoutError) -> None:
        async with self._store.within(scope) as session:
            about = {"knowledge": knowledge, "code": error.code, "message": error.message[:_TOLD]}
            await note(session, scope.workspace, Kind.SYNC_FAILED, scope.principal, about)

    async def _sync(self, steps: Steps, bundle: str, knowledge: str) -> Result:
        app = await read_bundle(self._store, self._keyring, steps.scope, bundle)
        part = next((p for p in app.declared.knowledge if p.name == knowledge and p.source is not None), None)
        if part is None:
            raise InvalidInput(f"{FILE} declares no knowledge {knowledge!r} with a source.")
        made = await self._ingester.folder(steps, part.name, app.sources[part.name], part.readers)
        return {
            "knowledge": knowledge,
            "snapshot": made.digest,
            "documents": made.documents,
            "problems": list(made.problems),
        }


async def read_bundle(store: Store, keyring: Keyring, scope: Scope, bundle: str) -> App:
    """The app folder of a bundle. Raises NotFound, and Mistakes."""
    async with store.within(scope) as session:
        row = await session.row("bundles.get", id=bundle)
        key = await keyring.workspace(session, scope.workspace)
    if row is None:
        raise NotFound("The uploaded app folder is gone: upload it again.")
    return read_app(unpack(unseal(key, row["sealed"], "bundle")))


async def then_forget(store: Store, steps: Steps, bundle: str, work: Awaitable[Result]) -> Result:
    """Does `work` and forgets the bundle, unless the worker is stopped: then the next one goes on with it."""
    try:
        made = await work
    except ProveoutError:
        await steps.run("forget the upload", forget_bundle, store, steps.scope, bundle)
        raise
    await steps.run("forget the upload", forget_bundle, store, steps.scope, bundle)
    return made


async def forget_bundle(store: Store, scope: Scope, bundle: str) -> None:
    """Deletes a bundle."""
    async with store.within(scope) as session:
        await session.run("bundles.delete", id=bundle)


def resolve(app: App, catalogue: Catalogue, snapshots: dict[str, str]) -> Manifest:
    """The resolved manifest. Raises NotFound for a model that this server does not have."""
    declared = app.declared
    model = declared.model
    sampling = model.parameters
    return Manifest(
        app=declared.app,
        model=tuple(ModelChoice(catalogue.use(c.use), _when(c.when)) for c in model.use),
        fallback=tuple(map(catalogue.use, model.fallback)),
        parameters=Parameters(
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            top_p=sampling.top_p,
            seed=sampling.seed,
            stop=tuple(sampling.stop),
        ),
        prompt=app.prompt,
        knowledge=tuple(
            KnowledgeUse(
                part.name, "" if part.follow else snapshots.get(part.name, ""), part.top_k, part.mode, part.min_score
            )
            for part in declared.knowledge
        ),
        otherwise=declared.grounding.otherwise,
    )


def _facts(app: App) -> dict[str, object]:
    """The release's facts, with the digests of its golden questions and scorers. Raises InvalidInput for mistakes in
    the questions."""
    cases = read_cases(app.golden, app.declared.evals.golden or "golden")
    return {**app.facts, **evidence.measured_by(cases, app.scorers)}


def _when(part: WhenPart | None) -> When | None:
    """Conditions that mean the same are written the same, so that they give the same digest."""
    if part is None:
        return None
    bound = int(part.words[1:]) if part.words else None
    return When(
        groups=tuple(sorted(set(part.groups))),
        words_over=bound if part.words.startswith(">") else None,
        words_under=bound if part.words.startswith("<") else None,
    )
