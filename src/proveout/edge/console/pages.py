"""The console's pages: ask an app, log in, log out. What the pages do, they do through the HTTP API."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from proveout.access import sessions
from proveout.access.keys import take_login
from proveout.domain import Directory, Principal
from proveout.edge.http import problems
from proveout.edge.http.requests import CONSOLE_HEADER, SESSION_COOKIE, gateway, principal
from proveout.errors import ProveoutError, Unauthenticated
from proveout.serving.resolve import find_release, models_for

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "font-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "vary": "accept, authorization, cookie",
}


@dataclass(frozen=True, slots=True)
class AppChoice:
    """An app that may be asked, and who answers: `helpdesk@3 · poc`."""

    name: str
    answers: str


async def ask(request: Request) -> Response:
    """`GET /`: the ask page; how to log in, for a browser without a session; the server's name as JSON, for others."""
    if "text/html" not in request.headers.get("accept", ""):
        about = {"name": "proveout", "version": version("proveout"), "api": "/openapi.json"}
        return JSONResponse(about, headers={"vary": _HEADERS["vary"]})
    try:
        caller = principal(request)
    except Unauthenticated as error:
        return _welcome(request, error)
    apps = choices(gateway(request).directory(), caller)
    return _page("ask.html", apps=apps, workspace=caller.key.workspace, key=caller.key.name)


async def login(request: Request) -> Response:
    """`GET /login?code=…`: a one-time code becomes a session."""
    here = gateway(request)
    try:
        if request.method == "HEAD":
            raise Unauthenticated("A login link is opened with GET; HEAD leaves it unused.")
        key = await take_login(here.store, request.query_params.get("code", ""))
    except ProveoutError as error:
        status = problems.response(error).status_code
        return _page("login.html", status, heading="This login link does not work", message=error.message)
    response = RedirectResponse("/", 303, headers=_HEADERS)
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


def _welcome(request: Request, error: Unauthenticated) -> Response:
    over = SESSION_COOKIE in request.cookies
    page = _page(
        "login.html",
        heading="Your session is over" if over else "Log in to the console",
        message=error.message if over else None,
    )
    if not over and request.headers.get("sec-fetch-site") == "cross-site":
        # A SameSite=Strict cookie is withheld when a link on another site leads here, and also after /login
        # opened from there. Coming from this page the browser sends it, so the page asks for itself once more.
        page.headers["refresh"] = "0; url=/"
    return page


def _page(template: str, status: int = 200, **values: object) -> Response:
    return HTMLResponse(_templates().get_template(template).render(values), status, _HEADERS)


@cache
def _templates() -> Environment:
    loader = PackageLoader("proveout.edge.console")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.globals["asset"] = asset
    return environment


@cache
def asset(name: str) -> str:
    """The address of an asset, with its digest: after an upgrade no browser keeps the old one."""
    content = files("proveout.edge.console").joinpath("assets", name).read_bytes()
    return f"/assets/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"
