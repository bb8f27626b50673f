"""The shape of the server's config file, `proveout.yaml`; `settings.py` reads it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationInfo, field_validator, model_validator


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Prices(Strict):
    input: float = Field(ge=0, description="USD per million tokens of the prompt.")
    output: float = Field(ge=0, description="USD per million tokens of the answer.")


class RemoteModel(Strict):
    version: str = Field(
        default="", description="What the model is declared to be: part of the digest of every release that uses it."
    )
    prices: Prices | None = Field(default=None, description="Default: the provider's.")
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens",
        description="How the model is told the bound of its answer: OpenAI's reasoning models take only the second.",
    )


class Timeouts(Strict):
    connect: float = Field(default=5, gt=0, description="Seconds to connect.")
    first: float = Field(default=60, gt=0, description="Seconds until the first token.")
    between: float = Field(default=30, gt=0, description="Seconds from one token to the next.")
    total: float = Field(default=600, gt=0, description="Seconds for the whole answer.")


class Plain(Strict):
    prompt: str = Field(default="prompt", min_length=1, description="The field of the question.")
    text: str = Field(default="generated_text", min_length=1, description="The field of the answer.")
    max_tokens: str = Field(
        default="", description="The field of the longest answer, in tokens. By default it is not told."
    )


class Provider(Strict):
    plain: Plain | None = Field(
        default=None,
        description="For a system without OpenAI's protocol, such as the one that is to be replaced: a question is "
        "POSTed to `base_url` as a JSON object, another comes back. `eval run --baseline NAME/it` compares with it.",
    )
    base_url: str = Field(
        pattern=r"^https?://.+", description="Where its OpenAI protocol is; ends in `/v1`. With `plain`: what is asked."
    )
    api_key_env: str | None = Field(default=None, description="The environment variable that holds its API key.")
    prices: Prices | None = Field(default=None, description="Of every model without prices of its own.")
    models: dict[str, RemoteModel] = Field(
        default_factory=dict, description="What is known of its models, by the provider's names for them."
    )
    region: str = Field(default="", description="Where it runs, as the record of a request names it.")
    timeouts: Timeouts = Field(default=Timeouts(), description="How long the provider is waited for.")

    @field_validator("base_url")
    @classmethod
    def _speaks(cls, base_url: str, given: ValidationInfo) -> str:
        if not given.data.get("plain") and not base_url.rstrip("/").endswith("/v1"):
            raise ValueError("it must end in /v1; a system without OpenAI's protocol needs `plain: {}` beside it")
        return base_url


class EchoCall(Strict):
    name: str = Field(min_length=1, description="The tool.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="What it is called with.")


class EchoReply(Strict):
    text: str | None = Field(
        default=None, description="What is said when no tools were offered; by itself, the question."
    )
    tool_calls: list[EchoCall] = Field(
        min_length=1, description="The calls that are asked for when tools were offered."
    )


class Echo(Strict):
    replies: dict[str, str | EchoReply] | list[str] = Field(
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
    def _patterns(cls, replies: dict[str, str | EchoReply] | list[str]) -> dict[str, str | EchoReply] | list[str]:
        for key in replies if isinstance(replies, dict) else ():
            try:
                re.compile(key)
            except re.error as error:
                raise ValueError(f"{key!r} is not a pattern ({error}): write a backslash before ( [ * + ? .") from error
        return replies


class Telemetry(Strict):
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


class LocalModel(Strict):
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
    def _one_place(self) -> LocalModel:
        if self.path and self.hub:
            raise ValueError("name a path or a hub, not both")
        return self


class Engine(Strict):
    memory: ByteSize | None = Field(
        default=None, description="What all local models together may use; a start that needs more is refused."
    )


Capture = Literal["sealed", "none"]


class Captures(Strict):
    default: Capture = Field(default="sealed", description="For apps that are not named, and for direct models.")
    apps: dict[str, Capture] = Field(default_factory=dict, description="For an app, by its name.")


class Witness(Strict):
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

    @field_validator("url")
    @classmethod
    def _without_slash(cls, url: str) -> str:
        return url.rstrip("/")


class Ledger(Strict):
    origin: str = Field(
        default="proveout.local",
        pattern=r"^[^\s+]+$",
        description="The name of this installation, as the web has names: a workspace's log is `ORIGIN/WORKSPACE`.",
    )
    public: bool = Field(
        default=False, description="Whether the log is open to anyone; else a key needs `requests:read`."
    )
    witnesses: list[Witness] = Field(
        default_factory=list, description="Who cosigns the log's checkpoints. Nothing else is sent anywhere."
    )

    @field_validator("witnesses")
    @classmethod
    def _differ(cls, witnesses: list[Witness]) -> list[Witness]:
        if len({witness.key.partition("+")[0] for witness in witnesses}) < len(witnesses):
            raise ValueError("two witnesses have one name")
        return witnesses


Days = Annotated[str, Field(pattern=r"^(never|[1-9]\d{0,4}d)$")]


class Retention(Strict):
    payloads: Days = Field(default="30d", description="What was asked and answered: days (`30d`), or `never`.")
    requests: Days = Field(
        default="never",
        description="The records of requests, with their payloads, and what the log's entries of them commit to.",
    )
    evaluations: Days = Field(default="never", description="Evaluations and their answers.")
    events: Days = Field(default="never", description="What the log's other entries commit to.")


Topic = Literal["rollback", "promotion", "frozen", "aborted", "approval", "refresh", "sync", "break-glass"]
TOPICS: tuple[Topic, ...] = get_args(Topic)
Address = Annotated[str, Field(pattern=r"^[^\s<>,;:\"@]+@[^\s<>,;:\"@]+$", max_length=254)]


class Email(Strict):
    to: list[Address] = Field(min_length=1, max_length=50, description="Who gets it.")
    sender: Address = Field(alias="from", description="Who it is from.")
    smtp: str = Field(
        pattern=r"^smtps?://[^/?#@\s]+(\?tls=off)?$",
        description="The mail server: `smtp://HOST:PORT` goes on in TLS by STARTTLS or not at all, except on this "
        "machine; `?tls=off` allows a server without. `smtps://HOST:PORT` is TLS from the start.",
    )
    user_env: str | None = Field(default=None, description="The environment variable that holds the user's name.")
    password_env: str | None = Field(default=None, description="The environment variable that holds the password.")

    @model_validator(mode="after")
    def _both(self) -> Email:
        if (self.user_env is None) != (self.password_env is None):
            raise ValueError("name both user_env and password_env, or neither")
        return self


class Notify(Strict):
    webhook: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/]\S*$",
        description="Where each notification is posted as JSON, signed as Standard Webhooks has it.",
    )
    secret_env: str | None = Field(
        default=None, description="The environment variable that holds the webhook's secret, `whsec_…`."
    )
    chat: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/]\S*$",
        description='Instead: a chat\'s incoming webhook, which gets `{"text": …}`. Its address is its secret.',
    )
    email: Email | None = Field(default=None, description="Instead: people, by e-mail.")
    on: list[Topic] = Field(default=list(TOPICS), min_length=1, description="What is told.")
    apps: list[str] | None = Field(
        default=None, min_length=1, description="Of which apps; what concerns no single app is told too. Default: all."
    )

    @model_validator(mode="before")
    @classmethod
    def _on(cls, given: Any) -> Any:
        """YAML 1.1 reads the bare word `on` as true."""
        return (
            {"on" if key is True else key: value for key, value in given.items()} if isinstance(given, dict) else given
        )

    @model_validator(mode="after")
    def _one(self) -> Notify:
        if [self.webhook, self.chat, self.email].count(None) != 2:
            raise ValueError("name one of webhook, chat and email")
        if (self.webhook is None) != (self.secret_env is None):
            raise ValueError("a webhook needs secret_env, and nothing else takes it")
        return self


class Mlflow(Strict):
    tracking_uri: str = Field(
        pattern=r"^(https?://[^/@]+(/.*)?|file:/.*)$",
        description="The tracking server, without credentials, or `file:///FOLDER`. Every evaluation becomes a run "
        "there, with its report: the questions and answers in it leave this server.",
    )
    experiment: str | None = Field(
        default=None, min_length=1, description="The experiment that runs are put in. Default: `proveout/APP`."
    )
    token_env: str | None = Field(default=None, description="The environment variable that holds its access token.")


class ConfigFile(Strict):
    """The server's config file, `proveout.yaml`."""

    url: str = Field(
        default="",
        pattern=r"^(https?://[^\s/?#]+(/[^\s?#]*)?)?$",
        description="Where people reach this server, for links in notifications: `https://proveout.example.com`.",
    )
    providers: dict[str, Provider] = Field(
        default_factory=dict, description="Model providers that speak OpenAI's protocol. Nothing else is called."
    )
    models: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")], LocalModel] = Field(
        default_factory=dict,
        description="Models that run here, used as `local/NAME`. The built-in embedder always does; the built-in "
        "generator does where no other model that writes is named, or it is named too.",
    )
    engine: Engine = Field(default=Engine(), description="Where local models run.")
    echo: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")], Echo] = Field(
        default_factory=dict, description="Scripted fakes, used as the models `echo/NAME`."
    )
    default: str | None = Field(
        default=None, description="The model for clients that name none. Default: the first app, else the local model."
    )
    capture: Capture | Captures = Field(
        default="sealed",
        description="Whether what was asked and answered is kept, sealed, for replay and evaluation.",
    )
    retention: Retention = Field(
        default=Retention(),
        description="After how many days each class of records is deleted. The log's entries stay, and holds keep "
        "what they cover.",
    )
    telemetry: Telemetry = Field(default=Telemetry(), description="What is told to those who run the server.")
    ledger: Ledger = Field(default=Ledger(), description="The log of everything that happened, for auditors.")
    stages: str | None = Field(
        default=None,
        description="A file that says which evidence each stage demands, in place of the policy that is shipped.",
    )
    mlflow: Mlflow | None = Field(
        default=None, description="Mirrors evaluations as runs of MLflow; needs `pip install 'proveout[mlflow]'`."
    )
    notify: list[Notify] = Field(
        default_factory=list, description="Who is told what happened. Nothing is sent to anyone else."
    )

    @field_validator("notify")
    @classmethod
    def _once(cls, notify: list[Notify]) -> list[Notify]:
        """A target follows the log by its name: two entries would share what they have seen."""
        seen = [n.webhook or n.chat or (n.email and (n.email.smtp, frozenset(n.email.to))) for n in notify]
        if len(set(seen)) < len(seen):
            raise ValueError("two entries name one target: write one, with all that it is told")
        return notify
