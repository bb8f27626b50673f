"""Stage: from a model's name to the release, or the model, that answers."""

from __future__ import annotations

import re
from dataclasses import replace

from proveout.domain import STAGES, Directory, ModelUse, Parameters, Principal, Release, Right, StageName
from proveout.errors import InvalidInput, NotFound
from proveout.serving.call import Asked, Call, Rooms

_DIRECT_MAX_TOKENS = 1024
_LOCAL = "local/smollm2-135m-instruct"
_NAME = re.compile(r"(?P<app>[a-z][a-z0-9-]*)(?::(?P<stage>[a-z]+)|@(?P<number>[0-9]{1,9}))?")


async def resolve(call: Call, rooms: Rooms) -> Call:
    """`helpdesk`, `helpdesk:beta`, `helpdesk@12`, `local/NAME`, `PROVIDER/MODEL`, `echo`, or nothing.

    Raises NotFound for unknown and for forbidden names, alike.
    """
    name = call.asked.model or rooms.default or _first_app(rooms.directory(), call.principal) or _LOCAL
    if not call.asked.question.strip():
        raise InvalidInput("messages: there is no user message with text to answer.")
    if "/" in name or name == "echo":
        if not call.principal.may_call(name):
            raise _unknown(name)
        use = ModelUse(name, rooms.catalogue.digest(name))
        base = Parameters(max_tokens=_DIRECT_MAX_TOKENS)
        return replace(call, models=(use,), parameters=_overridden(base, call.asked))
    release, stage = find_release(rooms.directory(), call.principal, name)
    manifest = release.manifest
    return replace(
        call,
        release=release,
        stage=stage,
        models=(manifest.model, *manifest.fallback),
        parameters=_overridden(manifest.parameters, call.asked),
    )


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
