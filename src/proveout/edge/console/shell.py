"""What every page shares: headers, templates, assets, who looks at it, and how a page is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache, wraps
from importlib.resources import files
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from proveout.access import keys
from proveout.domain import Principal, Right
from proveout.edge.console import figures
from proveout.edge.http import problems
from proveout.edge.http.requests import SESSION_COOKIE, gateway, principal
from proveout.errors import InvalidInput, NotFound, ProveoutError, Unauthenticated

Page = Callable[[Request, Principal], Awaitable[Response]]
Handler = Callable[[Request], Awaitable[Response]]

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
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "vary": "accept, authorization, cookie",
}


@dataclass(frozen=True, slots=True)
class Who:
    """Who looks at a page, as its bar names them; `releases` and `operates`: these pages are theirs to see."""

    workspace: str
    key: str
    releases: bool
    operates: bool


def page(template: str, caller: Principal | None = None, status: int = 200, **values: object) -> Response:
    """A page; its bar has the navigation that is the caller's."""
    who = None
    if caller is not None:
        rights = caller.rights
        who = Who(caller.key.workspace, caller.key.name, Right.RELEASES_READ in rights, Right.REQUESTS_READ in rights)
    return HTMLResponse(_templates().get_template(template).render(values, who=who), status, HEADERS)


def for_holders(right: Right) -> Callable[[Page], Handler]:
    """Makes a page one for holders of `right`: others are told how to log in, or that there is no such thing."""

    def shown_to_holders(show: Page) -> Handler:
        @wraps(show)
        async def handle(request: Request) -> Response:
            caller = None
            try:
                caller = principal(request)
                keys.require(caller, right)
                return await show(request, caller)
            except Unauthenticated as error:
                return welcome(request, error, 401)
            except ProveoutError as error:
                return _refused(error, caller)

        return handle

    return shown_to_holders


def key_names(request: Request, caller: Principal) -> dict[str, str]:
    """The names of the workspace's keys, by id."""
    known = gateway(request).directory().keys.values()
    return {key.id: key.name for key in known if key.workspace == caller.key.workspace}


def _refused(error: ProveoutError, caller: Principal | None) -> Response:
    """The page of an error, in the server's words."""
    heading = "This cannot be shown now"
    if isinstance(error, InvalidInput):
        heading = "This address does not say what to show"
    elif isinstance(error, NotFound):
        heading = "Not here, or not for your key"
    return page("refused.html", caller, problems.response(error).status_code, heading=heading, message=error.message)


def welcome(request: Request, error: Unauthenticated, status: int = 200) -> Response:
    """How to log in, for a browser without a session or with one that is over."""
    over = SESSION_COOKIE in request.cookies
    shown = page(
        "login.html",
        status=status,
        heading="Your session is over" if over else "Log in to the console",
        message=error.message if over else None,
    )
    if not over and request.headers.get("sec-fetch-site") == "cross-site":
        # A SameSite=Strict cookie is withheld when a link on another site leads here, and also after /login
        # opened from there. Coming from this page the browser sends it, so the page asks for itself once more.
        shown.headers["refresh"] = f"0; url={quote(request.url.path)}"
    return shown


@cache
def _templates() -> Environment:
    loader = PackageLoader("proveout.edge.console")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["asset"] = asset
    environment.filters |= figures.FILTERS
    return environment


@cache
def asset(name: str) -> str:
    """The address of an asset, with its digest: after an upgrade no browser keeps the old one."""
    content = files("proveout.edge.console").joinpath("assets", name).read_bytes()
    return f"/assets/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"
