"""The nouns: plain frozen data that the rooms hand to each other.

Nothing here does I/O. Invariants are checked at birth; computed facts are properties.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

StageName = Literal["poc", "beta", "production"]
STAGES: tuple[StageName, ...] = ("poc", "beta", "production")  # ascending: the last is the highest

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
SearchMode = Literal["hybrid", "dense", "lexical"]
Otherwise = Literal["quote", "refuse", "flag"]
EVERYONE = "everyone"
KNOWLEDGE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"  # what a base of documents may be called
WORKSPACE = "default"  # the workspace that every installation has


class Right(StrEnum):
    """The closed vocabulary of rights, `resource:action`."""

    APPS_ASK = "apps:ask"
    EVALUATIONS_RUN = "evaluations:run"
    EVIDENCE_ATTEST = "evidence:attest"
    KEYS_MANAGE = "keys:manage"
    KNOWLEDGE_SEARCH = "knowledge:search"
    KNOWLEDGE_WRITE = "knowledge:write"
    MODELS_CALL = "models:call"
    NOTIFICATIONS_MANAGE = "notifications:manage"
    RELEASES_APPROVE = "releases:approve"
    RELEASES_BREAK_GLASS = "releases:break-glass"
    RELEASES_CREATE = "releases:create"
    RELEASES_PREVIEW = "releases:preview"
    RELEASES_PROMOTE = "releases:promote"
    RELEASES_READ = "releases:read"
    REQUESTS_READ = "requests:read"
    REQUESTS_REPLAY = "requests:replay"
    SUBJECTS_ERASE = "subjects:erase"


class Outcome(StrEnum):
    """How a call ended; exactly one per admitted request."""

    ANSWERED = "answered"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    TRUNCATED = "truncated"
    FAILED = "failed"
    UNKNOWN = "unknown"  # the process that answered died


# -- who ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scope:
    """What a read of content may see: one workspace, as one principal, in these groups.

    A required argument of every store function that reads content.
    """

    workspace: str
    principal: str
    groups: frozenset[str] = frozenset()
    rights: frozenset[Right] = frozenset()
    purpose: str = "request"
    unrestricted: bool = False

    def __post_init__(self) -> None:
        if not self.workspace or not self.principal:
            raise ValueError("a scope needs a workspace and a principal")

    @property
    def readers(self) -> list[str]:
        """The reader marks that this scope holds, as documents name them in `readers`."""
        return [EVERYONE, f"user:{self.principal}", *(f"group:{g}" for g in sorted(self.groups))]

    @classmethod
    def system(cls, workspace: str, purpose: str) -> Scope:
        """The scope of background work, which sees every reader's content of its workspace.

        Built only in `jobs` and `edge/wiring.py`; `purpose` says what for, and is recorded.
        """
        return cls(workspace, "system", purpose=purpose, unrestricted=True)


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as stored: never its text. `apps` None means every app of the workspace."""

    id: str
    name: str
    workspace: str
    role: str
    groups: frozenset[str] = frozenset()
    apps: frozenset[str] | None = None
    models: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: a key with the rights of its role."""

    key: Key
    rights: frozenset[Right]

    @property
    def scope(self) -> Scope:
        return Scope(self.key.workspace, self.key.name, self.key.groups, self.rights)

    def reaches(self, app: str) -> bool:
        """Whether the key is not limited to other apps."""
        return self.key.apps is None or app in self.key.apps

    def may_ask(self, app: str) -> bool:
        return Right.APPS_ASK in self.rights and self.reaches(app)

    def may_call(self, model: str) -> bool:
        return Right.MODELS_CALL in self.rights or model in self.key.models


# -- what is released -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parameters:
    """Sampling parameters of one generation; None leaves a choice to the model. `max_tokens` always bounds it."""

    temperature: float | None = None
    max_tokens: int = 256
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelUse:
    """A model by name, with the digest of its weights (or a remote model's declared version).

    Of a local model also the mode that it runs in (`fast`, `deterministic`) and the digest of its chat template.
    """

    name: str
    digest: str
    mode: str = ""
    template: str = ""


@dataclass(frozen=True, slots=True)
class When:
    """Which calls a choice of model is for. A call must meet every condition that is given."""

    groups: tuple[str, ...] = ()  # the caller is in one of them
    words_over: int | None = None  # the question has more words than this
    words_under: int | None = None  # the question has fewer words than this

    def holds(self, groups: frozenset[str], question: str) -> bool:
        """Whether a call by someone in `groups` who asks `question` meets the conditions."""
        if self.groups and groups.isdisjoint(self.groups):
            return False
        words = len(question.split())
        over = self.words_over is None or words > self.words_over
        return over and (self.words_under is None or words < self.words_under)


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model, and the calls that it is for; None: for every call that comes this far down the list."""

    use: ModelUse
    when: When | None = None


@dataclass(frozen=True, slots=True)
class PromptTexts:
    """The prompt templates, as text: the instructions, and the user turn with its passages."""

    system: str
    answer: str


@dataclass(frozen=True, slots=True)
class KnowledgeUse:
    """One corpus, pinned to the snapshot with this digest; without one it follows the base's newest."""

    name: str
    snapshot: str
    top_k: int = 6
    mode: SearchMode = "hybrid"
    min_score: float = 0.2


@dataclass(frozen=True, slots=True)
class Manifest:
    """The resolved manifest: everything that decides an answer, and nothing else."""

    app: str
    model: tuple[ModelChoice, ...]  # the first that applies is served; the last applies always
    fallback: tuple[ModelUse, ...]
    parameters: Parameters
    prompt: PromptTexts
    knowledge: tuple[KnowledgeUse, ...]
    otherwise: Otherwise
    schema: int = 1

    def __post_init__(self) -> None:
        if not self.model or self.model[-1].when is not None:
            raise ValueError("the last choice of a model must be for every call")

    def model_for(self, groups: frozenset[str], question: str) -> ModelUse:
        """The model that is served to a caller in `groups` who asks `question`."""
        return next(c.use for c in self.model if c.when is None or c.when.holds(groups, question))


@dataclass(frozen=True, slots=True)
class Release:
    """An immutable, numbered, content-addressed bundle. `facts` stay outside the digest."""

    workspace: str
    app: str
    number: int
    digest: str
    manifest: Manifest
    facts: Mapping[str, object]
    created: datetime
    author: str = ""  # the key that made it first
    origins: frozenset[str] = frozenset()  # the authors of the releases that it was derived from

    @property
    def label(self) -> str:
        return f"{self.app}@{self.number}"

    @property
    def authors(self) -> frozenset[str]:
        """The keys that had a hand in it: none of them may approve it."""
        return self.origins | {self.author}

    @property
    def follows(self) -> frozenset[str]:
        """The knowledge whose newer snapshots its stages are to get, once they have passed the gate of refreshes."""
        names = self.facts.get("follows")
        return frozenset(names) if isinstance(names, list) else frozenset()


@dataclass(frozen=True, slots=True)
class Pilots:
    """Who gets a candidate first, whatever its weight: a `share` (0 to 1) of these users and groups."""

    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """The release that a rollout sends a part of a stage's traffic, `weight` from 0 to 1.

    `salt` makes the draws of one rollout independent of those of every other.
    """

    release: int
    weight: float
    rollout: str
    salt: str = field(repr=False)
    pilots: Pilots = Pilots()


@dataclass(frozen=True, slots=True)
class Retired:
    """The release that a rollout has replaced: conversations that it had on it stay there until a time."""

    release: int
    rollout: str
    until: datetime
    salt: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Route:
    """Which release a stage of an app serves, since when, which candidate beside it, and which one before it."""

    workspace: str
    app: str
    stage: StageName
    stable: int
    since: datetime
    candidate: Candidate | None = None
    retired: Retired | None = None


@dataclass(frozen=True, slots=True)
class Directory:
    """The configuration that the hot path reads from memory, as of one version."""

    version: int
    keys: Mapping[bytes, Key]  # by the digest of the key's text
    releases: Mapping[tuple[str, str, int], Release]  # by workspace, app, number
    routes: Mapping[tuple[str, str, StageName], Route]  # by workspace, app, stage
    session_secret: bytes = field(repr=False)

    def stages_of(self, release: Release) -> list[StageName]:
        """The stages that a release is the stable one of, ascending."""
        at = ((stage, self.routes.get((release.workspace, release.app, stage))) for stage in STAGES)
        return [stage for stage, route in at if route and route.stable == release.number]


Basis = Literal["measured", "attested"]
Finding = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found out about exactly one release digest, signed. `kind` is open: `evaluation`, `drill`, `approval`, …

    Measured by this server, or attested by the holder of the key `author`; after `expires` it counts no more.
    """

    id: str
    workspace: str
    app: str
    digest: str
    kind: str
    basis: Basis
    verdict: Finding
    author: str
    facts: Mapping[str, Any]
    recorded: datetime
    expires: datetime | None
    signature: bytes = field(repr=False, default=b"")


# -- knowledge ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrieved chunk. `start`/`end` are character offsets in the document's extracted text; `cosine` is its
    likeness to the query, 0 where the search did not look at it (`lexical`)."""

    chunk: str
    document: str
    title: str
    headings: tuple[str, ...]
    text: str
    start: int
    end: int
    page: int | None = None
    score: float = 0.0
    cosine: float = 0.0

    @property
    def place(self) -> str:
        """Where in the document, for a person: `Leave › Carry-over` or `page 3`."""
        parts = [" › ".join(self.headings)] if self.headings else []
        return ", ".join([*parts, f"page {self.page}"] if self.page else parts)


@dataclass(frozen=True, slots=True)
class Excerpts:
    """Spans of a text, in characters; its first `head` ones (title, headings) are read with each of them."""

    text: str
    head: int
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Citation:
    """A source of an answer: number (from 1), where it stands and the words quoted (≤ 60)."""

    number: int
    document: str
    title: str
    place: str
    quote: str
    chunk: str


# -- a call ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a model asked for; `arguments` is JSON as the model wrote it, valid or not."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `parts` is the content as the caller sent it where it is more than text (images, say)."""

    role: Role
    content: str
    parts: tuple[Mapping[str, object], ...] = ()
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()  # of an assistant
    tool_call_id: str | None = None  # of a tool: which call this answers


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked: the upstream's own model name, the messages, the parameters.

    `options` are fields of OpenAI's protocol that only some models take (tools, response_format, logprobs, …), as sent.
    `bounds_thoughts`: `max_tokens` was meant to hold for unseen reasoning too (OpenAI's `max_completion_tokens`).
    """

    model: str
    messages: tuple[Message, ...]
    parameters: Parameters
    options: Mapping[str, object] = field(default_factory=dict)
    bounds_thoughts: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one generation."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of an answer, or of a model's refusal to give one. `logprobs` as OpenAI's protocol has them."""

    text: str
    refusal: bool = False
    logprobs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ToolCallPiece:
    """A piece of the call number `index`: its first has the id and the name, all together the arguments."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a generation: always the last event of a whole stream, never invented."""

    reason: FinishReason
    usage: Usage
    served_by: str = ""  # the model as the upstream itself names it, with its fingerprint if it has one


Event = Text | ToolCallPiece | Finish


@dataclass(frozen=True, slots=True)
class Support:
    """The support check's word on one sentence; `passage` is the index of the best passage, `source` its words."""

    text: str
    supported: bool
    score: float
    passage: int | None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a guard says of a text."""

    guard: str
    action: Literal["allow", "mask", "flag", "block"]
    reason: str
    score: float
    spans: tuple[tuple[int, int], ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens."""

    input: float
    output: float

    def cost(self, usage: Usage) -> float:
        """USD for one generation."""
        return (usage.prompt_tokens * self.input + usage.completion_tokens * self.output) / 1e6


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect, until the first token, from one token to the next, and for the whole answer."""

    connect: float = 5
    first: float = 60
    between: float = 30
    total: float = 600
