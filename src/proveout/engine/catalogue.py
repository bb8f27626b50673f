"""Every model that can be named, by name: `local/NAME`, `echo`, `echo/NAME`, `PROVIDER/MODEL`."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proveout import configfile
from proveout.configfile import ROLES, Role
from proveout.domain import Excerpts, ModelUse, Price, Timeouts
from proveout.engine.echo import Echo
from proveout.engine.local import LocalModel
from proveout.engine.model import Model
from proveout.engine.plain import Plain
from proveout.engine.remote import Remote
from proveout.engine.weights import EMBEDDER
from proveout.errors import NotFound, Unavailable
from proveout.settings import EchoSettings

ECHO = "echo"
LOCAL = "local"
FREE = Price(0, 0)

log = logging.getLogger(__name__)


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
    reasoning: frozenset[str] = frozenset()  # models that take max_completion_tokens, not max_tokens
    plain: configfile.Plain | None = None  # it speaks no OpenAI protocol

    def __post_init__(self) -> None:
        if self.name in (LOCAL, ECHO) or "/" in self.name or not self.name:
            raise ValueError(f"a provider cannot be called {self.name!r}")


@cache
def _embedded_runtime() -> str:
    return f"openvino-genai {version('openvino-genai')}"


class Catalogue:
    """The models of this server. Local models of other roles than those of `serve` are known, but not named."""

    def __init__(
        self,
        providers: Sequence[Provider],
        engine: Path,
        local: Sequence[LocalModel],
        scripts: Sequence[EchoSettings] = (),
        serve: Sequence[Role] = ROLES,
    ) -> None:
        self._providers = {p.name: p for p in providers}
        self._remotes = {
            p.name: Remote(p.base_url, p.api_key, name=p.name, timeouts=p.timeouts, reasoning=p.reasoning)
            for p in providers
            if p.plain is None
        }
        self._plain = {
            p.name: Plain(p.base_url, p.plain, p.api_key, name=p.name, timeouts=p.timeouts)
            for p in providers
            if p.plain
        }
        self._engine = Remote("http://engine/v1", name="The local engine", socket_path=engine)
        self._local = {f"{LOCAL}/{model.name}": model for model in local}
        self._served = {name: model.role for name, model in self._local.items() if model.role in serve}
        self._scripts = {f"{ECHO}/{s.name}": s for s in scripts}
        self._refused: set[ModelUse] = set()
        self._echoes = {ECHO: Echo(), **{name: Echo(script) for name, script in self._scripts.items()}}

    def resolve(self, name: str) -> tuple[Model, str]:
        """The model and the name it has upstream. Raises NotFound."""
        if name in self._echoes:
            return self._echoes[name], name
        provider, _, model = name.partition("/")
        if self._served.get(name) == "chat":
            return self._engine, model
        if provider in self._providers and model:
            return self._remotes.get(provider) or self._plain[provider], model
        raise NotFound(f"There is no model {name!r}; there are: {', '.join(self.names())}.")

    def pinned(self, use: ModelUse) -> Model:
        """The model that a release pins.

        Raises NotFound, and Unavailable when the local model of that name has other weights, another mode or another
        chat template than the release was made with: its answers would be another release's.
        """
        here = self.local(use.name)
        if here is not None and here != use:
            parts = {"weights": "digest", "mode": "mode", "chat template": "template"}
            other = " and ".join(what for what, key in parts.items() if getattr(here, key) != getattr(use, key))
            told = (
                f"The release was made with {use.name} of {use.digest}, and the {other} of that name here changed "
                f"since (now {here.digest}): put it back and start again, or make a new release."
            )
            if use not in self._refused:  # every question would say it again
                self._refused.add(use)
                log.error("%s", told)
            raise Unavailable(told)
        return self.resolve(use.name)[0]

    def local(self, name: str) -> ModelUse | None:
        """What a release pins of a local model; None for what is none."""
        model = self._local.get(name)
        if model is None:
            return None
        if model.template is None:
            return ModelUse(name, model.digest)
        return ModelUse(name, model.digest, model.mode, model.template.digest)

    def use(self, name: str) -> ModelUse:
        """What a release pins of a model. Raises NotFound."""
        return self.local(name) or ModelUse(name, self.digest(name))

    def takes(self, name: str, *needs: str) -> bool:
        """Whether the model takes these fields of OpenAI's protocol; `messages` are turns with more than text.

        Of a provider's model it is not known before: the provider says so itself.
        """
        model = self._local.get(name)
        return model is None or model.takes.issuperset(needs)

    def digest(self, name: str) -> str:
        """What decides a model's answers, `sha256:…`: weights, or name and declared version. Raises NotFound.

        The same on every machine: neither paths nor base URLs enter it. Knows `local/` embedders too.
        """
        provider, _, model = name.partition("/")
        if name in self._local:
            return self._local[name].digest
        self.resolve(name)
        if name in self._scripts:
            script = json.dumps(asdict(self._scripts[name]), sort_keys=True)
            return f"sha256:{hashlib.sha256(script.encode()).hexdigest()}"
        version = self._providers[provider].versions.get(model, "") if provider in self._providers else "1"
        return f"sha256:{hashlib.sha256(f'{name}@{version}'.encode()).hexdigest()}"

    def price(self, name: str) -> Price | None:
        """USD per million tokens; None when the provider's model has no price. Raises NotFound."""
        provider, _, model = name.partition("/")
        if name not in self._local:
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
        return [*(n for n, role in self._served.items() if role == "chat"), *self._echoes, *declared]

    def embedders(self) -> list[str]:
        """The models known to make embeddings and nothing else."""
        return [name for name, role in self._served.items() if role == "embed"]

    def embedder(self, name: str) -> tuple[Remote, str]:
        """The model and the name it has upstream. Raises NotFound."""
        provider, _, model = name.partition("/")
        if self._served.get(name) == "embed":
            return self._engine, model
        if provider in self._remotes and model:
            return self._remotes[provider], model
        raise NotFound(f"The model {name!r} makes no embeddings: use {' or '.join(self.embedders())}, or a provider's.")

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of the embedded encoder, float32 [n, 384]. Raises as `Remote.embed` does."""
        return await self._engine.embed(texts, EMBEDDER)

    async def match(self, question: str, texts: Sequence[Excerpts]) -> NDArray[np.float32]:
        """Cosines [excerpts, 1 + words] of a question and its content words. Raises as `Remote.match` does."""
        return await self._engine.match(question, texts, EMBEDDER)

    async def metrics(self) -> str:
        """What the embedded engine counts: lines of OpenMetrics. Raises Unavailable or UpstreamFailed."""
        return await self._engine.metrics()

    async def check(self) -> None:
        """Returns when the embedded models are loaded. Raises Unavailable, saying which is not."""
        await self._engine.check()

    async def close(self) -> None:
        """Close every connection."""
        for remote in (self._engine, *self._remotes.values(), *self._plain.values()):
            await remote.close()
