"""The one reader of the environment and of the server's config file. Read once, at a process's start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from proveout.domain import Price
from proveout.errors import StartRefused


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: its name, what it is for, its default."""

    name: str
    meaning: str
    default: str = ""


URL = Variable("PROVEOUT_URL", "The server that the command line talks to.", "http://127.0.0.1:8080")
KEY = Variable("PROVEOUT_KEY", "The API key that the command line sends. Default: the text of DATA/owner.key.")
DATA = Variable("PROVEOUT_DATA", "The folder that holds everything a server keeps on disk.", ".proveout")
DATABASE = Variable("PROVEOUT_DATABASE", "The Postgres to use, as a DSN. Default: the embedded one.")
CONFIG = Variable("PROVEOUT_CONFIG", "The server's config file. Default: ./proveout.yaml, then DATA/proveout.yaml.")
ENGINE = Variable("PROVEOUT_ENGINE", "The Unix socket of the embedded engine. Default: in the runtime folder.")
APPS = Variable("PROVEOUT_APPS", "Apps that must be able to answer before the server is ready, separated by commas.")
VARIABLES = (URL, KEY, DATA, DATABASE, CONFIG, ENGINE, APPS)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Prices(_Strict):
    input: float = Field(ge=0)
    output: float = Field(ge=0)


class _RemoteModel(_Strict):
    version: str = ""
    prices: _Prices | None = None


class _Provider(_Strict):
    base_url: str = Field(pattern=r"^https?://.+/v1/?$")
    api_key_env: str | None = None
    prices: _Prices | None = None
    models: dict[str, _RemoteModel] = Field(default_factory=dict)


class _Config(_Strict):
    providers: dict[str, _Provider] = Field(default_factory=dict)
    default: str | None = None


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """A remote provider. `price` is that of every model without one of its own in `prices`."""

    name: str
    base_url: str
    api_key: str | None = field(repr=False)
    price: Price | None
    prices: Mapping[str, Price]
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process was told by its environment and its config file."""

    url: str
    key: str | None = field(repr=False)
    data: Path
    database: str | None = field(repr=False)
    engine: Path | None
    apps: tuple[str, ...]
    providers: tuple[ProviderSettings, ...]
    default: str | None


def read(environ: Mapping[str, str] | None = None) -> Settings:
    """Reads the environment and the config file.

    Raises StartRefused naming the key that is wrong.
    """
    env = os.environ if environ is None else environ

    def get(variable: Variable) -> str:
        return env.get(variable.name) or variable.default

    data = Path(get(DATA)).expanduser().absolute()
    path = _config_path(get(CONFIG), data)
    config = _Config() if path is None else _read_config(path)
    engine = get(ENGINE)
    return Settings(
        url=get(URL).rstrip("/"),
        key=get(KEY) or _owner_key(data),
        data=data,
        database=get(DATABASE) or None,
        engine=Path(engine) if engine else None,
        apps=tuple(name for name in get(APPS).split(",") if name),
        providers=tuple(_provider(name, p, env, path) for name, p in config.providers.items()),
        default=config.default,
    )


def _config_path(named: str, data: Path) -> Path | None:
    if named:
        if not Path(named).is_file():
            raise StartRefused(f"The config file {named} does not exist: correct --config or {CONFIG.name}.")
        return Path(named)
    return next((p for p in (Path("proveout.yaml"), data / "proveout.yaml") if p.is_file()), None)


def _read_config(path: Path) -> _Config:
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _Config.model_validate(content or {})
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StartRefused(f"{path} is not valid YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise StartRefused(f"{path}: {key}: {first['msg']}") from error


def _provider(name: str, given: _Provider, env: Mapping[str, str], path: Path | None) -> ProviderSettings:
    if name in ("local", "echo"):
        raise StartRefused(f"{path}: providers.{name}: this name is taken by the built-in models; choose another.")
    key = env.get(given.api_key_env) if given.api_key_env else None
    if given.api_key_env and not key:
        raise StartRefused(f"{path}: providers.{name}.api_key_env: the variable {given.api_key_env} is not set.")
    return ProviderSettings(
        name=name,
        base_url=given.base_url.rstrip("/"),
        api_key=key,
        price=_price(given.prices),
        prices={model: price for model, m in given.models.items() if (price := _price(m.prices))},
        versions={model: m.version for model, m in given.models.items()},
    )


def _price(given: _Prices | None) -> Price | None:
    return Price(given.input, given.output) if given else None


def _owner_key(data: Path) -> str | None:
    try:
        return (data / "owner.key").read_text(encoding="ascii").strip()
    except (FileNotFoundError, PermissionError):
        return None


def for_child(values: Mapping[Variable, object]) -> dict[str, str]:
    """The environment for a process that this one starts: its own, with these settings in it."""
    given = {variable.name: str(value) for variable, value in values.items() if value is not None}
    return {**os.environ, **given}
