"""Every model that can be named, by name: `local/NAME`, `echo`, `echo/NAME`, `PROVIDER/MODEL`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proveout.domain import Price, Timeouts
from proveout.engine.echo import Echo
from proveout.engine.model import Model
from proveout.engine.remote import Remote
from proveout.engine.weights import EMBEDDER, GENERATOR
from proveout.errors import NotFound
from proveout.settings import EchoSettings

ECHO = "echo"
LOCAL = "local"
FREE = Price(0, 0)


@dataclass(frozen=True, slots=True)
class Provider:
    """An upstream from the server's config.

    `prices` and `versions` are by the provider's model names; `price` is that of every other model.
    A version is what the operator declares a remote model to be (`gpt-x` may be another model tomorrow).
    """

    name: str
    base_url: str
    api_key: str | None = field(default=None, repr=False)
    price: Price | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    region: str = ""
    timeouts: Timeouts = Timeouts()

    def __post_init__(self) -> None:
        if self.name in (LOCAL, ECHO) or "/" in self.name or not self.name:
            raise ValueError(f"a provider cannot be called {self.name!r}")


@cache
def _embedded_runtime() -> str:
    return f"openvino-genai {version('openvino-genai')}"


class Catalogue:
    """The models of this server. `digests` holds the embedded models' (`weights.digest`) by their names."""

    def __init__(
        self,
        providers: Sequence[Provider],
        engine: Path,
        digests: Mapping[str, str],
        scripts: Sequence[EchoSettings] = (),
    ) -> None:
        self._providers = {p.name: p for p in providers}
        self._remotes = {p.name: Remote(p.base_url, p.api_key, name=p.name, timeouts=p.timeouts) for p in providers}
        self._local = Remote("http://engine/v1", name="The embedded engine", socket_path=engine)
        self._digests = dict(digests)
        self._scripts = {f"{ECHO}/{s.name}": s for s in scripts}
        self._echoes = {ECHO: Echo(), **{name: Echo(script) for name, script in self._scripts.items()}}

    def resolve(self, name: str) -> tuple[Model, str]:
        """The model and the name it has upstream. Raises NotFound."""
        if name in self._echoes:
            return self._echoes[name], name
        provider, _, model = name.partition("/")
        if provider == LOCAL and model == GENERATOR:
            return self._local, model
        if provider in self._remotes and model:
            return self._remotes[provider], model
        raise NotFound(f"There is no model {name!r}; there are: {', '.join(self.names())}.")

    def takes_options(self, name: str) -> bool:
        """Whether the model takes more than text and sampling parameters: tools, images, a schema, and so on."""
        return not name.startswith(f"{LOCAL}/")

    def digest(self, name: str) -> str:
        """What decides a model's answers, `sha256:…`: weights, or name and declared version. Raises NotFound.

        The same on every machine: neither paths nor base URLs enter it. Knows `local/` embedders too.
        """
        provider, _, model = name.partition("/")
        if provider == LOCAL and model in self._digests:
            return self._digests[model]
        self.resolve(name)
        if name in self._scripts:
            script = json.dumps(asdict(self._scripts[name]), sort_keys=True)
            return f"sha256:{hashlib.sha256(script.encode()).hexdigest()}"
        version = self._providers[provider].versions.get(model, "") if provider in self._providers else "1"
        return f"sha256:{hashlib.sha256(f'{name}@{version}'.encode()).hexdigest()}"

    def price(self, name: str) -> Price | None:
        """USD per million tokens; None when the provider's model has no price. Raises NotFound."""
        provider, _, model = name.partition("/")
        if not (provider == LOCAL and model in self._digests):
            self.resolve(name)
        if provider not in self._providers:
            return FREE
        return self._providers[provider].prices.get(model, self._providers[provider].price)

    def runtime(self, name: str) -> str:
        """What runs a model: the embedded runtime with its version, or the provider, with its region if declared."""
        provider, _, _ = name.partition("/")
        if provider == LOCAL:
            return _embedded_runtime()
        region = self._providers[provider].region if provider in self._providers else ""
        return f"{provider} in {region}" if region else provider

    def names(self) -> list[str]:
        """The models known by name. A provider may have more than its prices and versions tell."""
        declared = [
            f"{p.name}/{model}"
            for p in self._providers.values()
            for model in sorted(p.prices.keys() | p.versions.keys())
        ]
        return [f"{LOCAL}/{GENERATOR}", *self._echoes, *declared]

    def embedders(self) -> list[str]:
        """The models known to make embeddings and nothing else."""
        return [f"{LOCAL}/{EMBEDDER}"]

    def embedder(self, name: str) -> tuple[Remote, str]:
        """The model and the name it has upstream. Raises NotFound."""
        provider, _, model = name.partition("/")
        if provider == LOCAL and model == EMBEDDER:
            return self._local, model
        if provider in self._remotes and model:
            return self._remotes[provider], model
        raise NotFound(f"The model {name!r} makes no embeddings: use {LOCAL}/{EMBEDDER}, or a provider's.")

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of the embedded encoder, float32 [n, 384]. Raises as `Remote.embed` does."""
        return await self._local.embed(texts, EMBEDDER)

    async def check(self) -> None:
        """Returns when the embedded models are loaded. Raises Unavailable, saying which is not."""
        await self._local.check()

    async def close(self) -> None:
        """Close every connection."""
        for remote in (self._local, *self._remotes.values()):
            await remote.close()
