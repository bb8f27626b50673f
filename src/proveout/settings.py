"""The one reader of the environment and of the server's config file. Read once, at a process's start."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError, field_validator, model_validator

from proveout.domain import Price, Timeouts, ToolCall
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


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Prices(_Strict):
    input: float = Field(ge=0, description="USD per million tokens of the prompt.")
    output: float = Field(ge=0, description="USD per million tokens of the answer.")


class _RemoteModel(_Strict):
    version: str = Field(
        default="", description="What the model is declared to be: part of the digest of every release that uses it."
    )
    prices: _Prices | None = Field(default=None, description="Default: the provider's.")
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens",
        description="How the model is told the bound of its answer: OpenAI's reasoning models take only the second.",
    )


class _Timeouts(_Strict):
    connect: float = Field(default=5, gt=0, description="Seconds to connect.")
    first: float = Field(default=60, gt=0, description="Seconds until the first token.")
    between: float = Field(default=30, gt=0, description="Seconds from one token to the next.")
    total: float = Field(default=600, gt=0, description="Seconds for the whole answer.")


class _Provider(_Strict):
    base_url: str = Field(pattern=r"^https?://.+/v1/?$", description="Where its OpenAI protocol is; ends in `/v1`.")
    api_key_env: str | None = Field(default=None, description="The environment variable that holds its API key.")
    prices: _Prices | None = Field(default=None, description="Of every model without prices of its own.")
    models: dict[str, _RemoteModel] = Field(
        default_factory=dict, description="What is known of its models, by the provider's names for them."
    )
    region: str = Field(default="", description="Where it runs, as the record of a request names it.")
    timeouts: _Timeouts = Field(default=_Timeouts(), description="How long the provider is waited for.")


class _EchoCall(_Strict):
    name: str = Field(min_length=1, description="The tool.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="What it is called with.")


class _EchoReply(_Strict):
    text: str | None = Field(
        default=None, description="What is said when no tools were offered; by itself, the question."
    )
    tool_calls: list[_EchoCall] = Field(
        min_length=1, description="The calls that are asked for when tools were offered."
    )


class _Echo(_Strict):
    replies: dict[str, str | _EchoReply] | list[str] = Field(
        default_factory=dict,
        description="By question, or a pattern (Python's `re`) found in it, the reply, the first that fits; or a list "
        "of replies, of which chance takes one. Without a reply, the question.",
    )
    seed: int = Field(0, description="What chance starts from, with the request's own `seed` and messages.")
    error_rate: float = Field(0, ge=0, le=1, description="The share of requests that fail before the first token.")
    truncate_rate: float = Field(0, ge=0, le=1, description="The share of answers that break off half way.")
    degrade_rate: float = Field(0, ge=0, le=1, description="The share of answers with their words in reverse.")
    first_token_ms: float = Field(0, ge=0, le=600_000, description="Milliseconds before the first token.")
    per_token_ms: float = Field(0, ge=0, le=60_000, description="Milliseconds from one token to the next.")
    tokens: int | None = Field(None, ge=1, le=100_000, description="Tokens (words) of every answer, by repetition.")
    chunk: int = Field(1, ge=1, le=10_000, description="Tokens that are sent at once.")

    @field_validator("replies")
    @classmethod
    def _patterns(cls, replies: dict[str, str | _EchoReply] | list[str]) -> dict[str, str | _EchoReply] | list[str]:
        for key in replies if isinstance(replies, dict) else ():
            try:
                re.compile(key)
            except re.error as error:
                raise ValueError(f"{key!r} is not a pattern ({error}): write a backslash before ( [ * + ? .") from error
        return replies


class _Telemetry(_Strict):
    otlp: str | None = Field(
        default=None,
        pattern=r"^https?://[^/]+",
        description="Where spans are sent by OTLP over HTTP: `http://collector:4318`. Without it nothing is sent.",
    )
    headers_env: str | None = Field(
        default=None,
        description="The environment variable that holds the collector's headers: `name=value,name=value`.",
    )
    metrics_public: bool = Field(
        default=False, description="Whether `/metrics` is open to anyone; else a key needs `requests:read`."
    )
    log: Literal["json", "text"] | None = Field(
        default=None, description="How the log is written. Default: text on a terminal, JSON lines elsewhere."
    )


Role = Literal["chat", "embed"]
ROLES: tuple[Role, ...] = ("chat", "embed")
Device = Literal["CPU", "GPU", "NPU", "AUTO"]
Mode = Literal["fast", "deterministic"]


class _LocalModel(_Strict):
    path: str | None = Field(
        default=None,
        description="A .gguf file, an OpenVINO IR folder, or a sentence encoder's folder with safetensors; relative to "
        "this file. A built-in model needs none.",
    )
    hub: str | None = Field(
        default=None,
        pattern=r"^[\w.-]+/[\w.-]+(@[\w.-]+)?(:[\w./-]+)?$",
        description="Instead: `OWNER/REPOSITORY@REVISION` on the Hugging Face hub, `:FILE` for one file of it; "
        "downloaded at the first start.",
    )
    device: Device = Field(default="CPU", description="Where it runs; AUTO takes the GPU where there is one.")
    instances: int = Field(default=1, ge=1, le=16, description="How many processes serve it.")
    mode: Mode = Field(
        default="fast",
        description="`deterministic` gives the same answer alone and under load, at about half the speed.",
    )
    memory: ByteSize | None = Field(
        default=None, description="What one instance may use (`2 GiB`): what the weights leave holds running answers."
    )
    chat_template: str | None = Field(
        default=None, description="A file with a Jinja template that takes the place of the model's own."
    )

    @model_validator(mode="after")
    def _one_place(self) -> _LocalModel:
        if self.path and self.hub:
            raise ValueError("name a path or a hub, not both")
        return self


class _Engine(_Strict):
    memory: ByteSize | None = Field(
        default=None, description="What all local models together may use; a start that needs more is refused."
    )


Capture = Literal["sealed", "none"]


class _Captures(_Strict):
    default: Capture = Field(default="sealed", description="For apps that are not named, and for direct models.")
    apps: dict[str, Capture] = Field(default_factory=dict, description="For an app, by its name.")


class _Witness(_Strict):
    key: str = Field(description="Its key, as `proveout witness` prints it.")
    url: str = Field(
        pattern=r"^https?://[^/].*$", description="Where it answers; checkpoints are posted to `URL/add-checkpoint`."
    )

    @field_validator("key")
    @classmethod
    def _cosigns(cls, key: str) -> str:
        """C2SP's verifier keys, signature type 4: `NAME+ID+base64(TYPE ‖ KEY)`, the id over name, type and key."""
        name, _, rest = key.partition("+")
        try:
            data = base64.b64decode(rest.partition("+")[2], validate=True)
        except binascii.Error:
            data = b""
        number = hashlib.sha256(f"{name}\n".encode() + data).hexdigest()[:8]
        if len(data) != 33 or data[0] != 4 or key != f"{name}+{number}+{base64.b64encode(data).decode()}":
            raise ValueError("this is not a witness's key (NAME+ID+B…), or not the whole of it")
        return key


class _Ledger(_Strict):
    origin: str = Field(
        default="proveout.local",
        pattern=r"^[^\s+]+$",
        description="The name of this installation, as the web has names: a workspace's log is `ORIGIN/WORKSPACE`.",
    )
    public: bool = Field(
        default=False, description="Whether the log is open to anyone; else a key needs `requests:read`."
    )
    witnesses: list[_Witness] = Field(
        default_factory=list, description="Who cosigns the log's checkpoints. Nothing else is sent anywhere."
    )

    @field_validator("witnesses")
    @classmethod
    def _differ(cls, witnesses: list[_Witness]) -> list[_Witness]:
        if len({witness.key.partition("+")[0] for witness in witnesses}) < len(witnesses):
            raise ValueError("two witnesses have one name")
        return witnesses


Days = Annotated[str, Field(pattern=r"^(never|[1-9]\d{0,4}d)$")]


class _Retention(_Strict):
    payloads: Days = Field(default="30d", description="What was asked and answered: days (`30d`), or `never`.")
    requests: Days = Field(
        default="never",
        description="The records of requests, with their payloads, and what the log's entries of them commit to.",
    )
    evaluations: Days = Field(default="never", description="Evaluations and their answers.")
    events: Days = Field(default="never", description="What the log's other entries commit to.")


class ConfigFile(_Strict):
    """The server's config file, `proveout.yaml`."""

    providers: dict[str, _Provider] = Field(
        default_factory=dict, description="Model providers that speak OpenAI's protocol. Nothing else is called."
    )
    models: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")], _LocalModel] = Field(
        default_factory=dict,
        description="Models that run here, used as `local/NAME`. The built-in embedder always does; the built-in "
        "generator does where no other model that writes is named, or it is named too.",
    )
    engine: _Engine = Field(default=_Engine(), description="Where local models run.")
    echo: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")], _Echo] = Field(
        default_factory=dict, description="Scripted fakes, used as the models `echo/NAME`."
    )
    default: str | None = Field(
        default=None, description="The model for clients that name none. Default: the first app, else the local model."
    )
    capture: Capture | _Captures = Field(
        default="sealed",
        description="Whether what was asked and answered is kept, sealed, for replay and evaluation.",
    )
    retention: _Retention = Field(
        default=_Retention(),
        description="After how many days each class of records is deleted. The log's entries stay, and holds keep "
        "what they cover.",
    )
    telemetry: _Telemetry = Field(default=_Telemetry(), description="What is told to those who run the server.")
    ledger: _Ledger = Field(default=_Ledger(), description="The log of everything that happened, for auditors.")
    stages: str | None = Field(
        default=None,
        description="A file that says which evidence each stage demands, in place of the policy that is shipped.",
    )


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
class WitnessSettings:
    """A witness of the log: its key, as C2SP writes verifier keys, and where it answers."""

    key: str
    url: str


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """The log: its origin, whether anyone may read it, and who cosigns it."""

    origin: str
    public: bool
    witnesses: tuple[WitnessSettings, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process was told by its environment and its config file."""

    url: str
    key: str | None = field(repr=False)
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
    stages: Path | None  # the file of the stage policies, unless it is the shipped one


def read(environ: Mapping[str, str] | None = None) -> Settings:
    """Reads the environment and the config file.

    Raises StartRefused naming the key that is wrong.
    """
    env = os.environ if environ is None else environ

    def get(variable: Variable) -> str:
        return env.get(variable.name) or variable.default

    data = Path(get(DATA)).expanduser().absolute()
    path = _config_path(get(CONFIG), data)
    config = ConfigFile() if path is None else _read_config(path)
    engine = get(ENGINE)
    return Settings(
        url=get(URL).rstrip("/"),
        key=get(KEY) or _owner_key(data),
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
        ledger=_ledger(config.ledger),
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


def _read_config(path: Path) -> ConfigFile:
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return ConfigFile.model_validate(content or {})
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
        region=given.region,
        timeouts=Timeouts(**given.timeouts.model_dump()),
        reasoning=frozenset(n for n, m in given.models.items() if m.max_tokens_field == "max_completion_tokens"),
    )


def _local(name: str, given: _LocalModel, config: Path | None) -> LocalSettings:
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


def _echo(name: str, given: _Echo) -> EchoSettings:
    by_question = given.replies if isinstance(given.replies, dict) else {}
    any_of = given.replies if isinstance(given.replies, list) else []
    return EchoSettings(
        name=name,
        replies={question: _echo_reply(question, reply) for question, reply in by_question.items()},
        any_of=tuple(EchoReply(text) for text in any_of),
        **given.model_dump(exclude={"replies"}),
    )


def _echo_reply(question: str, given: str | _EchoReply) -> EchoReply:
    if isinstance(given, str):
        return EchoReply(given)
    mark = hashlib.sha256(question.encode()).hexdigest()[:16]
    calls = (
        ToolCall(f"call_{mark}{position}", call.name, json.dumps(call.arguments))
        for position, call in enumerate(given.tool_calls)
    )
    return EchoReply(given.text, tuple(calls))


def _telemetry(given: _Telemetry, env: Mapping[str, str], path: Path | None, shared: str) -> TelemetrySettings:
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


def _capture(given: Capture | _Captures) -> CaptureSettings:
    return CaptureSettings(given.default, given.apps) if isinstance(given, _Captures) else CaptureSettings(given)


def _retention(given: _Retention) -> RetentionSettings:
    return RetentionSettings(
        **{name: None if value == "never" else int(value[:-1]) for name, value in given.model_dump().items()}
    )


def _ledger(given: _Ledger) -> LedgerSettings:
    witnesses = tuple(WitnessSettings(witness.key, witness.url.rstrip("/")) for witness in given.witnesses)
    return LedgerSettings(given.origin, given.public, witnesses)


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
