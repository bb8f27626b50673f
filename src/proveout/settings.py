"""The one reader of the environment and of the server's config file. Read once, at a process's start."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import ValidationError

from proveout import configfile
from proveout.configfile import ROLES, TOPICS, Capture, Device, Mode, Role, Topic
from proveout.domain import Price, Timeouts, ToolCall
from proveout.errors import StartRefused


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: its name, what it is for, its default."""

    name: str
    meaning: str
    default: str = ""

    def of(self, environ: Mapping[str, str]) -> str:
        """Its value in an environment, else the default."""
        return environ.get(self.name) or self.default


URL = Variable("PROVEOUT_URL", "The server that the command line talks to.", "http://127.0.0.1:8080")
KEY = Variable("PROVEOUT_KEY", "The API key that the command line sends. Default: the text of DATA/owner.key.")
DATA = Variable("PROVEOUT_DATA", "The folder that holds everything a server keeps on disk.", ".proveout")
DATABASE = Variable("PROVEOUT_DATABASE", "The Postgres to use, as a DSN. Default: the embedded one.")
CONFIG = Variable("PROVEOUT_CONFIG", "The server's config file. Default: ./proveout.yaml, then DATA/proveout.yaml.")
ENGINE = Variable("PROVEOUT_ENGINE", "The Unix socket of the embedded engine. Default: in the runtime folder.")
MASTER_KEY = Variable(
    "PROVEOUT_MASTER_KEY",
    "The key above all keys of content, base64; an older one may follow, after a space. Default: the text of "
    "DATA/master.key.",
)
MASTER_KEY_COMMAND = Variable(
    "PROVEOUT_MASTER_KEY_COMMAND",
    "Instead: a command that prints it, as the client of a key management service does.",
)
APPS = Variable("PROVEOUT_APPS", "Apps that must be able to answer before the server is ready, separated by commas.")
FOLDERS = Variable("PROVEOUT_FOLDERS", "The folders of the apps that `up` was given, separated as in PATH.")
METRICS = Variable("PROVEOUT_METRICS", "The folder where the processes of one server share what they count.")
SERVE = Variable("PROVEOUT_SERVE", "The roles of local models that are started, separated by commas.", "chat,embed")
VARIABLES = (URL, KEY, DATA, DATABASE, CONFIG, ENGINE, MASTER_KEY, MASTER_KEY_COMMAND, APPS, FOLDERS, METRICS, SERVE)


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """A remote provider. `price` is that of every model without one of its own in `prices`."""

    name: str
    base_url: str
    api_key: str | None = field(repr=False)
    price: Price | None
    prices: Mapping[str, Price]
    versions: Mapping[str, str]
    region: str
    timeouts: Timeouts
    reasoning: frozenset[str]  # models that take max_completion_tokens, not max_tokens
    plain: configfile.Plain | None = None


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """A local model. `memory` is in bytes; None: enough for it. One of `path` and `hub`, or neither for a built-in."""

    name: str
    path: Path | None = None
    hub: str | None = None
    device: Device = "CPU"
    instances: int = 1
    mode: Mode = "fast"
    memory: int | None = None
    chat_template: Path | None = None


@dataclass(frozen=True, slots=True)
class EchoReply:
    """What a fake model says, None for the question; with tools offered, the calls instead, if there are any."""

    text: str | None
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class EchoSettings:
    """The script of the model `echo/NAME`; see `docs/configuration.md`. Rates are shares in [0, 1]."""

    name: str
    replies: Mapping[str, EchoReply] = field(default_factory=dict)  # by question or pattern, the first that fits
    any_of: tuple[EchoReply, ...] = ()  # for every question
    seed: int = 0
    error_rate: float = 0
    truncate_rate: float = 0
    degrade_rate: float = 0
    first_token_ms: float = 0
    per_token_ms: float = 0
    tokens: int | None = None
    chunk: int = 1


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """What is told to those who run the server. `shared` is the folder of the processes' counts."""

    otlp: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    metrics_public: bool = False
    log: Literal["json", "text"] | None = None
    shared: Path | None = None


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """Of whose requests the content is kept."""

    default: Capture = "sealed"
    apps: Mapping[str, Capture] = field(default_factory=dict)

    def keeps(self, app: str | None) -> bool:
        """Whether the content of a request to `app`, or to a model directly, is kept."""
        return (self.default if app is None else self.apps.get(app, self.default)) == "sealed"


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """After how many days each class of records is deleted; None: never."""

    payloads: int | None = 30
    requests: int | None = None
    evaluations: int | None = None
    events: int | None = None


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """The log: its origin, whether anyone may read it, and who cosigns it."""

    origin: str
    public: bool
    witnesses: tuple[configfile.Witness, ...] = ()


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """A webhook: its address, and the key that signs."""

    url: str = field(repr=False)
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """A chat's incoming webhook."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class MailSettings:
    """E-mail through one server. `tls`: from the start, by STARTTLS, or none."""

    to: tuple[str, ...]
    sender: str
    host: str
    port: int
    tls: Literal["implicit", "starttls", "none"]
    user: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """Who is told of what; `apps` None: of every app."""

    target: WebhookSettings | ChatSettings | MailSettings
    on: frozenset[Topic] = frozenset(TOPICS)
    apps: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class MlflowSettings:
    """Where evaluations are mirrored; without an experiment, each app's in one of its own."""

    tracking_uri: str
    experiment: str | None
    token: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Which server the command line asks, and with which key."""

    url: str
    key: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process of the server was told by its environment and its config file."""

    url: str  # where people reach it; "": not told
    data: Path
    database: str | None = field(repr=False)
    engine: Path | None
    config: Path | None
    master_key: str | None = field(repr=False)
    master_key_command: str | None
    apps: tuple[str, ...]
    folders: tuple[Path, ...]
    providers: tuple[ProviderSettings, ...]
    echo: tuple[EchoSettings, ...]
    models: tuple[LocalSettings, ...]
    memory: int | None  # bytes of all local models together
    serve: tuple[Role, ...]
    default: str | None
    capture: CaptureSettings
    retention: RetentionSettings
    telemetry: TelemetrySettings
    ledger: LedgerSettings
    notify: tuple[NotifySettings, ...]
    mlflow: MlflowSettings | None
    stages: Path | None  # the file of the stage policies, unless it is the shipped one


def read_client(environ: Mapping[str, str] | None = None) -> ClientSettings:
    """Reads what the command line needs; the server's config file, and the secrets that it names, are not."""
    env = os.environ if environ is None else environ
    return ClientSettings(URL.of(env).rstrip("/"), KEY.of(env) or _owner_key(Path(DATA.of(env)).expanduser()))


def read(environ: Mapping[str, str] | None = None) -> Settings:
    """Reads the environment and the config file.

    Raises StartRefused naming the key that is wrong.
    """
    env = os.environ if environ is None else environ

    def get(variable: Variable) -> str:
        return variable.of(env)

    data = Path(get(DATA)).expanduser().absolute()
    path = _config_path(get(CONFIG), data)
    config = configfile.ConfigFile() if path is None else _read_config(path)
    engine = get(ENGINE)
    return Settings(
        url=config.url.rstrip("/"),
        data=data,
        database=get(DATABASE) or None,
        engine=Path(engine) if engine else None,
        config=path,
        master_key=get(MASTER_KEY) or None,
        master_key_command=get(MASTER_KEY_COMMAND) or None,
        apps=tuple(name for name in get(APPS).split(",") if name),
        folders=tuple(Path(folder) for folder in get(FOLDERS).split(os.pathsep) if folder),
        providers=tuple(_provider(name, p, env, path) for name, p in config.providers.items()),
        echo=tuple(_echo(name, script) for name, script in config.echo.items()),
        models=tuple(_local(name, given, path) for name, given in config.models.items()),
        memory=config.engine.memory,
        serve=_roles(get(SERVE)),
        default=config.default,
        capture=_capture(config.capture),
        retention=_retention(config.retention),
        telemetry=_telemetry(config.telemetry, env, path, get(METRICS)),
        ledger=LedgerSettings(config.ledger.origin, config.ledger.public, tuple(config.ledger.witnesses)),
        notify=tuple(_notify(f"{path}: notify.{at}", n, env) for at, n in enumerate(config.notify)),
        mlflow=_mlflow(f"{path}: mlflow", config.mlflow, env) if config.mlflow else None,
        stages=_beside(path, config.stages),
    )


def _beside(config: Path | None, named: str | None) -> Path | None:
    """A file that the config names, relative to the config."""
    return None if named is None or config is None else (config.parent / Path(named).expanduser()).absolute()


def _config_path(named: str, data: Path) -> Path | None:
    if named:
        if not Path(named).is_file():
            raise StartRefused(f"The config file {named} does not exist: correct --config or {CONFIG.name}.")
        return Path(named)
    return next((p for p in (Path("proveout.yaml"), data / "proveout.yaml") if p.is_file()), None)


def _read_config(path: Path) -> configfile.ConfigFile:
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return configfile.ConfigFile.model_validate(content or {})
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StartRefused(f"{path} is not valid YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise StartRefused(f"{path}: {key}: {first['msg'].removeprefix('Value error, ')}") from error


def _provider(name: str, given: configfile.Provider, env: Mapping[str, str], path: Path | None) -> ProviderSettings:
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
        region=given.region,
        timeouts=Timeouts(**given.timeouts.model_dump()),
        reasoning=frozenset(n for n, m in given.models.items() if m.max_tokens_field == "max_completion_tokens"),
        plain=given.plain,
    )


def _local(name: str, given: configfile.LocalModel, config: Path | None) -> LocalSettings:
    beside = (config or Path()).absolute().parent
    return LocalSettings(
        name=name,
        path=beside / Path(given.path).expanduser() if given.path else None,
        hub=given.hub,
        device=given.device,
        instances=given.instances,
        mode=given.mode,
        memory=given.memory,
        chat_template=beside / Path(given.chat_template).expanduser() if given.chat_template else None,
    )


def _roles(names: str) -> tuple[Role, ...]:
    given = {name.strip() for name in names.split(",")}
    if unknown := given.difference(ROLES):
        raise StartRefused(f"{SERVE.name}: {min(unknown)!r} is not one of {', '.join(ROLES)} (--serve chat,embed).")
    return tuple(role for role in ROLES if role in given)


def _echo(name: str, given: configfile.Echo) -> EchoSettings:
    by_question = given.replies if isinstance(given.replies, dict) else {}
    any_of = given.replies if isinstance(given.replies, list) else []
    return EchoSettings(
        name=name,
        replies={question: _echo_reply(question, reply) for question, reply in by_question.items()},
        any_of=tuple(EchoReply(text) for text in any_of),
        **given.model_dump(exclude={"replies"}),
    )


def _echo_reply(question: str, given: str | configfile.EchoReply) -> EchoReply:
    if isinstance(given, str):
        return EchoReply(given)
    mark = hashlib.sha256(question.encode()).hexdigest()[:16]
    calls = (
        ToolCall(f"call_{mark}{position}", call.name, json.dumps(call.arguments))
        for position, call in enumerate(given.tool_calls)
    )
    return EchoReply(given.text, tuple(calls))


def _telemetry(
    given: configfile.Telemetry, env: Mapping[str, str], path: Path | None, shared: str
) -> TelemetrySettings:
    headers: dict[str, str] = {}
    if given.headers_env is not None:
        for pair in env.get(given.headers_env, "").split(","):
            name, equals, value = pair.partition("=")
            if not equals or not name.strip():
                key = f"{path}: telemetry.headers_env"
                raise StartRefused(f"{key}: the variable {given.headers_env} does not hold name=value,name=value.")
            headers[name.strip()] = value.strip()
    otlp = given.otlp.rstrip("/").removesuffix("/v1/traces") if given.otlp else None
    return TelemetrySettings(otlp, headers, given.metrics_public, given.log, Path(shared) if shared else None)


def _capture(given: Capture | configfile.Captures) -> CaptureSettings:
    return (
        CaptureSettings(given.default, given.apps) if isinstance(given, configfile.Captures) else CaptureSettings(given)
    )


def _retention(given: configfile.Retention) -> RetentionSettings:
    return RetentionSettings(
        **{name: None if value == "never" else int(value[:-1]) for name, value in given.model_dump().items()}
    )


def _notify(key: str, given: configfile.Notify, env: Mapping[str, str]) -> NotifySettings:
    apps = None if given.apps is None else frozenset(given.apps)
    if given.email is not None:
        return NotifySettings(_mail(f"{key}.email", given.email, env), frozenset(given.on), apps)
    if given.chat is not None:
        return NotifySettings(ChatSettings(given.chat), frozenset(given.on), apps)
    assert given.webhook is not None and given.secret_env is not None
    try:
        secret = base64.b64decode(_secret(key, given.secret_env, env).removeprefix("whsec_"), validate=True)
    except binascii.Error:
        secret = b""
    if not 24 <= len(secret) <= 64:
        raise StartRefused(
            f"{key}.secret_env: {given.secret_env} must hold `whsec_` and 24 to 64 random bytes in base64: "
            "`echo whsec_$(openssl rand -base64 32)` makes one."
        )
    return NotifySettings(WebhookSettings(given.webhook, secret), frozenset(given.on), apps)


def _mail(key: str, given: configfile.Email, env: Mapping[str, str]) -> MailSettings:
    at = urlsplit(given.smtp)
    try:
        host, port = at.hostname or "", at.port or (465 if at.scheme == "smtps" else 587)
    except ValueError as error:
        raise StartRefused(f"{key}.smtp: {error}.") from error
    local = host in ("localhost", "::1") or host.startswith("127.")
    plain = at.scheme == "smtp" and (local or bool(at.query))
    if plain and not local and given.user_env:
        raise StartRefused(f"{key}.smtp: the password would cross the network in the clear: take ?tls=off away.")
    user, password = (_secret(key, name, env) if name else None for name in (given.user_env, given.password_env))
    tls: Literal["implicit", "starttls", "none"] = (
        "none" if plain else "starttls" if at.scheme == "smtp" else "implicit"
    )
    return MailSettings(tuple(given.to), given.sender, host, port, tls, user, password)


def _mlflow(key: str, given: configfile.Mlflow, env: Mapping[str, str]) -> MlflowSettings:
    token = _secret(f"{key}.token_env", given.token_env, env) if given.token_env else None
    return MlflowSettings(given.tracking_uri, given.experiment, token)


def _secret(key: str, name: str, env: Mapping[str, str]) -> str:
    if not (value := env.get(name, "")):
        raise StartRefused(f"{key}: the variable {name} is not set.")
    return value


def _price(given: configfile.Prices | None) -> Price | None:
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


_PLACES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "VIRTUAL_ENV", "PYTHONPATH")
_NETWORK = ("ssl_cert_file", "ssl_cert_dir", "http_proxy", "https_proxy", "no_proxy", "all_proxy")


def for_mlflow(told: MlflowSettings) -> dict[str, str]:
    """The environment for a process that writes to MLflow, which tells nobody else of it and does not try for long.

    Of this process's own it has what any program needs, and none of the secrets.
    """
    ours = {name: value for name, value in os.environ.items() if name in _PLACES or name.lower() in _NETWORK}
    given = {
        "MLFLOW_TRACKING_URI": told.tracking_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
        **({"MLFLOW_TRACKING_TOKEN": told.token} if told.token else {}),
    }
    return {**ours, **given}
