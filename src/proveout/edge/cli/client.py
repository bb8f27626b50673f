"""The HTTP client of the command line, and of `up` once its server answers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from proveout import settings
from proveout.errors import ProveoutError, StartRefused, Unavailable
from proveout.releases.bundle import pack, read_folder
from proveout.releases.manifest import read_app

_POLL_SECONDS = 0.15
Progress = Callable[[int, int, str], None]
"""Called with how much is done, of how much, and what is being done."""


class Refused(ProveoutError):
    """The server refused the request. `body` is its answer: `{"error"}`, of a closed gate also `missing`."""

    def __init__(self, status: int, message: str, body: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = body or {"error": {"message": message, "code": self.code}}


class Client:
    """Calls `/api/v1` of one server with one key."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    async def call(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Any:
        """The answer's JSON, None when it has none. Raises Refused with the server's own words."""
        payload: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body}
        try:
            async with self._session.request(
                method, self.url + path, headers=headers, **(payload if body is not None else {})
            ) as response:
                if response.status == 204:
                    return None
                answer = await response.json(content_type=None)
        except (aiohttp.ClientError, ConnectionError, ValueError) as error:
            raise self._silent(error) from error
        if response.status >= 400:
            raise self._refusal(response.status, answer)
        return answer

    async def lines(self, path: str, body: object) -> AsyncIterator[bytes]:
        """The lines of a streamed answer to a POST, as they come. Raises Refused; Unavailable when it breaks off."""
        try:
            async with self._session.post(self.url + path, json=body) as response:
                if response.status >= 400:
                    raise self._refusal(response.status, await response.json(content_type=None))
                async for line in response.content:
                    yield line
        except (aiohttp.ClientError, ConnectionError, ValueError) as error:
            raise Unavailable(f"{self.url} broke off ({error}): what came is incomplete.") from error

    async def content(self, path: str) -> bytes:
        """The bytes of a GET. Raises Refused, Unavailable."""
        try:
            async with self._session.get(self.url + path) as response:
                if response.status >= 400:
                    raise self._refusal(response.status, await response.json(content_type=None))
                return await response.read()
        except (aiohttp.ClientError, ConnectionError, ValueError) as error:
            raise self._silent(error) from error

    async def ready(self) -> dict[str, Any]:
        """What `/readyz` says, ready or not. Raises Unavailable."""
        try:
            async with self._session.get(self.url + "/readyz") as response:
                return dict(await response.json(content_type=None))
        except (aiohttp.ClientError, ConnectionError, ValueError) as error:
            raise Unavailable(f"{self.url} does not answer ({error}).") from error

    async def job(self, job: str, progress: Progress | None = None) -> dict[str, Any]:
        """Waits for a job's end, telling `progress`; answers with its result. Raises Refused."""
        while True:
            state = await self.call("GET", f"/api/v1/jobs/{job}")
            if progress and state["progress"]:
                progress(state["progress"]["done"], state["progress"]["total"], state["progress"]["what"])
            if state["state"] == "failed":
                raise Refused(400, state["error"]["message"], {"error": state["error"]})
            if state["state"] == "done":
                return dict(state["result"])
            await asyncio.sleep(_POLL_SECONDS)

    async def create_release(self, folder: Path, progress: Progress | None = None) -> dict[str, Any]:
        """Uploads an app folder and waits for its release. Mistakes are found before anything is sent."""
        files = await asyncio.to_thread(read_folder, folder)
        app = read_app(files).declared.app
        headers = {"prefer": "respond-async", "content-type": "application/zip"}
        begun = await self.call("POST", f"/api/v1/apps/{app}/releases", pack(files), headers)
        return await self.job(begun["job"], progress)

    def _refusal(self, status: int, answer: Any) -> Refused:
        said = answer.get("error", {}) if isinstance(answer, dict) else {}
        return Refused(status, said.get("message") or f"{self.url} answered {status}.", answer if said else None)

    def _silent(self, error: Exception) -> Unavailable:
        return Unavailable(f"{self.url} does not answer as a Proveout server ({error}): is it up?")


@asynccontextmanager
async def connect(url: str, key: str | None, certificate: Path | None = None) -> AsyncIterator[Client]:
    """A client of the server at `url`; with a `certificate`, of the server that has exactly this one.

    Raises StartRefused without a key.
    """
    if key is None:
        raise StartRefused("No API key: set PROVEOUT_KEY, or PROVEOUT_DATA to the folder that holds owner.key.")
    headers = {"authorization": f"Bearer {key}", "accept": "application/json"}
    timeout = aiohttp.ClientTimeout(total=None, connect=5)
    connector = aiohttp.TCPConnector(ssl=_pinned(certificate) if certificate else True)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:
        yield Client(session, url)


def connected() -> AbstractAsyncContextManager[Client]:
    """A client of the server that the environment names. Raises StartRefused without a key."""
    told = settings.read_client()
    return connect(told.url, told.key)


def ask(method: str, path: str, body: object = None) -> Any:
    """What the server that the environment names answers to one call. Raises Refused, Unavailable, StartRefused."""

    async def run() -> Any:
        async with connected() as client:
            return await client.call(method, path, body)

    return asyncio.run(run())


def _pinned(certificate: Path) -> ssl.SSLContext:
    """Trusts this certificate alone, under whatever name the server is called."""
    context = ssl.create_default_context(cafile=str(certificate))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context
