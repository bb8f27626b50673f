"""Stage: from a model's name to the release, or the model, that answers."""

from __future__ import annotations

import re
from dataclasses import replace

from proveout.domain import STAGES, Directory, Parameters, Principal, Release, Right, StageName
from proveout.errors import InvalidInput, NotFound
from proveout.serving.arms import draw, stays
from proveout.serving.call import Asked, Call, Rooms

_DIRECT_MAX_TOKENS = 1024
_LOCAL = "local/smollm2-135m-instruct"
_LOCAL_EMBEDDER = "local/all-minilm-l6-v2"
_WITH_KNOWLEDGE = ("presence_penalty", "frequency_penalty", "logit_bias", "reasoning_effort")
_NAME = re.compile(r"(?P<app>[a-z][a-z0-9-]*)(?::(?P<stage>[a-z]+)|@(?P<number>[0-9]{1,9}))?")


async def resolve(call: Call, rooms: Rooms) -> Call:
    """`helpdesk`, `helpdesk:beta`, `helpdesk@12`, `local/NAME`, `PROVIDER/MODEL`, `echo`, or nothing.

    Raises NotFound for unknown and for forbidden names, alike.
    """
    if call.asked.embed:
        return _to_embed(call, rooms)
    name = call.asked.model or rooms.default or _first_app(rooms.directory(), call.principal) or _local(rooms)
    if not any(m.role == "user" and (m.parts or m.content.strip()) for m in call.asked.messages):
        raise InvalidInput("messages: there is no user message with text to answer.")
    return _able(
        _direct(call, rooms, name) if "/" in name or name == "echo" else await _of_app(call, rooms, name), rooms
    )


def _direct(call: Call, rooms: Rooms, name: str) -> Call:
    if not call.principal.may_call(name):
        raise _unknown(name)
    rooms.catalogue.resolve(name)
    use = rooms.catalogue.use(name)
    base = Parameters(max_tokens=_DIRECT_MAX_TOKENS)
    return replace(call, models=(use,), parameters=_overridden(base, call.asked))


async def _of_app(call: Call, rooms: Rooms, name: str) -> Call:
    directory = rooms.directory()
    release, stage = find_release(directory, call.principal, name)
    if stage is not None and call.purpose == "request":
        route, number = directory.routes[release.workspace, release.app, stage], release.number
        if route.candidate is not None:
            drawn, unit = await draw(call, route.candidate, rooms.assignments)
            call = replace(call, arm=drawn.arm, weight=drawn.of_arm, unit=unit)
            number = route.candidate.release if drawn.arm == "candidate" else number
        elif route.retired is not None and await stays(call, route.retired, rooms.assignments):
            number = route.retired.release
        release = directory.releases[release.workspace, release.app, number]
    manifest = release.manifest
    return replace(
        call,
        release=release,
        stage=stage,
        models=(manifest.model_for(call.principal.key.groups, call.asked.question), *manifest.fallback),
        parameters=_overridden(manifest.parameters, call.asked),
    )


def _to_embed(call: Call, rooms: Rooms) -> Call:
    name = call.asked.model or _LOCAL_EMBEDDER
    if not call.principal.may_call(name):
        raise _unknown(name)
    rooms.catalogue.embedder(name)
    if call.asked.options and not rooms.catalogue.takes(name, *call.asked.options):
        raise InvalidInput(f"{next(iter(call.asked.options))}: the embedded model does not take this: leave it out.")
    return replace(call, models=(rooms.catalogue.use(name),), parameters=Parameters(max_tokens=0))


def _able(call: Call, rooms: Rooms) -> Call:
    """The call with those of its models that take all that it asks for. What cannot be done is refused, not dropped."""
    needs = call.asked.needs
    if not needs:
        return call
    name = call.release.app if call.release else call.models[0].name
    for field in needs if call.has_knowledge else ():
        if field not in _WITH_KNOWLEDGE:
            raise InvalidInput(
                f"{field}: the app {name!r} answers in text that its sources support, sentence by sentence, so it "
                "takes no tools, images, schemas or log probabilities: leave this out, or use a model directly."
            )
    models = tuple(use for use in call.models if rooms.catalogue.takes(use.name, *needs))
    if not models:
        field = next((f for f in needs if not rooms.catalogue.takes(call.models[0].name, f)), needs[0])
        what = "turns of tools, or parts other than text" if field == "messages" else "this"
        raise InvalidInput(
            f"{field}: the local model behind {name!r} does not take {what}: leave it out, or use a model that does."
        )
    return replace(call, models=models)


def find_release(directory: Directory, principal: Principal, name: str) -> tuple[Release, StageName | None]:
    """The release that serves `name` to this principal, and its stage. Raises NotFound."""
    match = _NAME.fullmatch(name)
    if match is None or not principal.may_ask(match["app"]):
        raise _unknown(name)
    workspace, app = principal.key.workspace, match["app"]
    if match["number"]:
        release = directory.releases.get((workspace, app, int(match["number"])))
        if release is None or Right.RELEASES_PREVIEW not in principal.rights:
            raise _unknown(name)
        return release, None
    for stage in reversed(STAGES):
        route = directory.routes.get((workspace, app, stage))
        if route is not None and match["stage"] in (None, stage):
            return directory.releases[workspace, app, route.stable], stage
    raise _unknown(name)


def models_for(directory: Directory, principal: Principal, direct: list[str]) -> list[str]:
    """The names that this principal may use: apps, apps at a stage, models."""
    mine = [
        route
        for (workspace, app, _), route in sorted(directory.routes.items())
        if workspace == principal.key.workspace and principal.may_ask(app)
    ]
    apps = sorted({route.app for route in mine})
    staged = [f"{route.app}:{route.stage}" for route in mine]
    return apps + staged + [name for name in direct if principal.may_call(name)]


def _first_app(directory: Directory, principal: Principal) -> str | None:
    apps = (a for w, a, _ in directory.routes if w == principal.key.workspace and principal.may_ask(a))
    return min(apps, default=None)


def _local(rooms: Rooms) -> str:
    return next((name for name in rooms.catalogue.names() if name.startswith("local/")), _LOCAL)


def _overridden(base: Parameters, asked: Asked) -> Parameters:
    given = {
        name: value
        for name in ("temperature", "max_tokens", "top_p", "seed")
        if (value := getattr(asked, name)) is not None
    }
    return replace(base, **given, stop=asked.stop or base.stop)


def _unknown(name: str) -> NotFound:
    return NotFound(
        f"The model {name!r} does not exist, or your key does not grant it: GET /v1/models lists what it may use."
    )
