"""The ask page, and coming and going: log in, log out. What the page does, it does through the HTTP API."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from proveout.access import sessions
from proveout.access.keys import take_login
from proveout.domain import Directory, Principal
from proveout.edge.console import shell
from proveout.edge.http import problems
from proveout.edge.http.requests import CONSOLE_HEADER, SESSION_COOKIE, gateway, principal
from proveout.errors import ProveoutError, Unauthenticated
from proveout.serving.resolve import find_release, models_for


@dataclass(frozen=True, slots=True)
class AppChoice:
    """An app that may be asked, and who answers: `helpdesk@3 · poc`."""

    name: str
    answers: str


async def ask(request: Request) -> Response:
    """`GET /`: the ask page; how to log in, for a browser without a session; the server's name as JSON, for others."""
    if "text/html" not in request.headers.get("accept", ""):
        about = {"name": "proveout", "version": version("proveout"), "api": "/openapi.json"}
        return JSONResponse(about, headers={"vary": shell.HEADERS["vary"]})
    try:
        caller = principal(request)
    except Unauthenticated as error:
        return shell.welcome(request, error)
    apps = choices(gateway(request).directory(), caller)
    return shell.page("ask.html", caller, apps=apps)


async def login(request: Request) -> Response:
    """`GET /login?code=…`: a one-time code becomes a session."""
    here = gateway(request)
    try:
        if request.method == "HEAD":
            raise Unauthenticated("A login link is opened with GET; HEAD leaves it unused.")
        key = await take_login(here.store, request.query_params.get("code", ""))
    except ProveoutError as error:
        status = problems.response(error).status_code
        heading = "This login link does not work"
        return shell.page("login.html", status=status, heading=heading, message=error.message)
    response = RedirectResponse("/", 303, headers=shell.HEADERS)
    response.set_cookie(
        SESSION_COOKIE,
        sessions.sign(here.directory(), key),
        max_age=sessions.HOURS * 3600,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return response


async def logout(request: Request) -> Response:
    """`POST /logout`: forgets the session in this browser."""
    if CONSOLE_HEADER not in request.headers:
        # Another site can make a browser post here, but not send this header.
        return problems.response(Unauthenticated(f"Only the console logs out: it sends {CONSOLE_HEADER}."))
    response = Response(status_code=204)
    secure = request.url.scheme == "https"
    response.delete_cookie(SESSION_COOKIE, path="/", secure=secure, httponly=True, samesite="strict")
    return response


def choices(directory: Directory, caller: Principal) -> list[AppChoice]:
    """The apps that the caller may ask by their bare names, with the release that answers now."""
    found = []
    for name in models_for(directory, caller, []):
        if ":" not in name and "/" not in name:
            release, stage = find_release(directory, caller, name)
            found.append(AppChoice(name, f"{release.label} · {stage}"))
    return found
