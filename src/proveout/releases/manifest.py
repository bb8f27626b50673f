"""`app.yaml`: read, checked with file, line and key for every mistake, and resolved to a Manifest."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from proveout.domain import KNOWLEDGE_NAME, PromptTexts
from proveout.errors import InvalidInput
from proveout.evals.judge import RUBRIC, Judge, read_labels
from proveout.evals.scorers import kinds
from proveout.evals.scorers.confined import Confined
from proveout.evals.targets import mistakes
from proveout.releases.plan import Plan
from proveout.retrieval.readers import check_readers, matches
from proveout.serving.templates import check_template

FILE = "app.yaml"
Fact = str | int | float | bool | None
FACTS = {"purpose", "problem", "objectives", "owners", "risk", "risks", "data_classes", "targets", "rollout"}
"""The keys that are recorded with a release and versioned, but do not decide an answer."""

DEFAULT_SYSTEM = "Answer the question from the text. Quote the exact words."


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Owners(_Part):
    """Who answers for the app, and who runs it."""

    accountable: str = Field(min_length=1, description="Who answers for the app: a person or a post.")
    operator: str | None = Field(default=None, description="Who runs it from day to day.")


class Objective(_Part):
    """What the app is to achieve, against the process that it replaces."""

    measure: str = Field(
        min_length=1, description="What is measured, in words: `minutes until an employee has an answer`."
    )
    target: Fact = Field(description="What is to be reached.")
    baseline: Fact = Field(default=None, description="What the replaced process reaches today.")


class Hazard(_Part):
    """Something that may go wrong, and what is done about it."""

    risk: str = Field(min_length=1, description="What may go wrong, and for whom.")
    mitigation: str = Field(min_length=1, description="What is done about it.")
    owner: str | None = Field(default=None, description="Who sees to it.")


class RiskPart(_Part):
    """The app's risk, as its owner classes it."""

    class_: Literal["minimal", "limited", "high"] | None = Field(
        default=None, alias="class", description="The class of the use, in the sense of the EU's AI Act."
    )
    personal_data: bool | None = Field(default=None, description="Whether the app handles personal data.")
    notes: str = Field(default="", description="What else a reviewer must know.")


class Sampling(_Part):
    """Sampling parameters."""

    temperature: float | None = Field(
        default=None,
        ge=0,
        le=2,
        description="0 takes the likeliest token each time. Default: the model's own; 0 for the embedded one.",
    )
    max_tokens: int = Field(default=256, ge=1, le=32_768, description="The longest answer, in tokens.")
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Samples from the likeliest tokens that hold this probability. Default: the model's own.",
    )
    seed: int | None = Field(
        default=None, ge=1 - 2**53, le=2**53 - 1, description="Makes sampling repeatable where the model can."
    )
    stop: list[str] = Field(default_factory=list, max_length=8, description="Texts that end the answer.")


class WhenPart(_Part):
    """Conditions on a call; all that are given must hold."""

    groups: list[str] = Field(default_factory=list, description="The caller is in any of these groups.")
    words: str = Field(
        default="",
        pattern=r"^[<>][0-9]{1,6}$",
        description="The question has more (`>40`) or fewer (`<12`) words than this.",
    )

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.groups and not self.words:
            raise ValueError("a condition names groups or words")
        return self


class ChoicePart(_Part):
    """A model, and the calls that it is for."""

    use: str = Field(min_length=1, description="`local/NAME`, `echo`, or `PROVIDER/MODEL` from the server's config.")
    when: WhenPart | None = Field(
        default=None, description="Which calls get it; left out: all that come this far down the list."
    )


def _as_choices(value: object) -> object:
    if isinstance(value, str):
        return [{"use": value}]
    if not isinstance(value, list):
        raise ValueError("this is a model's name, or a list of {when, use}")
    return value


def _last_for_all(choices: list[ChoicePart]) -> list[ChoicePart]:
    if any(choice.when is None for choice in choices[:-1]) or choices[-1].when is not None:
        raise ValueError("the last model of the list, and it alone, is without `when`: it gets all other calls")
    return choices


class ModelPart(_Part):
    """Which model answers, and which ones stand in for it, in this order."""

    use: Annotated[
        list[ChoicePart],
        Field(
            min_length=1, description="A model's name, or a list of `{when, use}`: the first that applies is served."
        ),
        BeforeValidator(_as_choices, json_schema_input_type=str | list[ChoicePart]),
        AfterValidator(_last_for_all),
    ]
    fallback: list[str] = Field(
        default_factory=list, description="Models that stand in before the first text, in this order."
    )
    parameters: Sampling = Field(default=Sampling(), description="Sampling parameters.")


class PromptPart(_Part):
    """The prompt's files, relative to app.yaml."""

    system: str | None = Field(
        default=None,
        description="The instructions: a file with a Jinja template. Default: a built-in one. They stand in place of "
        "system and developer messages of a client, which is told so: `proveout.ignored`.",
    )
    answer: str | None = Field(
        default=None,
        description="The user's turn: a file with a Jinja template, which may use `question`, `passages`, `quotes`.",
    )


def _as_readers(marks: list[str]) -> list[str]:
    try:
        return list(check_readers(marks))
    except InvalidInput as error:
        raise ValueError(error.message) from None


class KnowledgePart(_Part):
    """A corpus, and how it is searched: a folder of documents, or a base that is filled by pushes."""

    name: str = Field(pattern=KNOWLEDGE_NAME, description="The corpus's name.")
    source: str | None = Field(
        default=None,
        description="A folder with documents, relative to app.yaml; left out: documents are pushed by the API.",
    )
    top_k: int = Field(default=6, ge=1, le=50, description="How many passages a question gets at most.")
    mode: Literal["hybrid", "dense", "lexical"] = Field(
        default="hybrid", description="By meaning and words, meaning, or words."
    )
    min_score: float = Field(default=0.2, ge=0, le=1, description="Passages with a lower score are left out.")
    readers: dict[str, Annotated[list[str], AfterValidator(_as_readers)]] = Field(
        default_factory=dict,
        description="Who may read which documents: patterns of paths in the folder (`hr/**`) and a list of `everyone`, "
        "`group:NAME`, `user:NAME`. The longest pattern that matches decides; a document's front matter (`readers: "
        "[…]`) comes before; all else is for everyone in the workspace.",
    )
    follow: bool = Field(
        default=False,
        description="Whether answers follow the newest snapshot; else a release keeps the one that it was made with.",
    )


class JudgePart(_Part):
    """A model that scores answers by a rubric. It decides only where it surely agrees with people; else it advises."""

    model: str = Field(min_length=1, description="`local/NAME`, `echo`, or `PROVIDER/MODEL` from the server's config.")
    rubric: str | None = Field(
        default=None, description="A text file that says what makes an answer good. Default: a built-in one."
    )
    labels: str | None = Field(
        default=None, description="A file with answers and the scores that people gave them, JSON lines."
    )
    repeats: int = Field(default=1, ge=1, le=5, description="How often each answer is rated.")
    share: float = Field(
        default=0, ge=0, le=1, description="The share of users' answered requests that it judges as they come."
    )


class EvalsPart(_Part):
    """The golden questions, relative to app.yaml."""

    golden: str | None = Field(default=None, description="A file with golden questions, JSON lines.")
    scorers: str | None = Field(
        default=None,
        description="A Python file; each function `(case, delivered)` in it is a scorer, run in a confined process.",
    )
    judge: JudgePart | None = Field(default=None, description="A model that scores answers.")


class GroundingPart(_Part):
    """What is delivered when the sources do not support the model's words."""

    otherwise: Literal["quote", "refuse", "flag"] = Field(
        default="quote", description="Unsupported words become a quote or the refusal, or pass with a flag."
    )


class AppFile(_Part):
    """A generative-AI application, as its folder declares it."""

    schema_version: Literal[1] = Field(default=1, alias="schema", description="The version of this file's form.")
    app: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$", description="The name that clients give as `model`.")
    purpose: str = Field(min_length=1, description="What the app is for, in one sentence. A fact.")
    problem: str = Field(default="", description="What is wrong with how things are done today. A fact.")
    objectives: list[Objective] = Field(
        default_factory=list, description="What it is to achieve, against the process that it replaces. Facts."
    )
    owners: Owners = Field(description="Who answers for the app, and who runs it. Facts.")
    risk: RiskPart = Field(default=RiskPart(), description="The app's risk as a whole. A fact.")
    risks: list[Hazard] = Field(
        default_factory=list, description="What may go wrong, and what is done about it. Facts."
    )
    data_classes: list[str] = Field(
        default_factory=list, description="The classes of data that it handles, in the company's own words. A fact."
    )
    model: ModelPart = Field(description="The models and their parameters.")
    prompt: PromptPart = Field(default=PromptPart(), description="The prompt's files.")
    knowledge: list[KnowledgePart] = Field(default_factory=list, description="The corpora that answers may draw on.")
    grounding: GroundingPart = Field(default=GroundingPart(), description="What happens to words without a source.")
    evals: EvalsPart = Field(default=EvalsPart(), description="What a release is asked before it is trusted.")
    rollout: Plan = Field(default=Plan(), description="How a release is let into a stage, step by step. Facts.")
    targets: dict[str, Fact] = Field(default_factory=dict, description="What answers should reach, in words. Facts.")

    @property
    def facts(self) -> dict[str, object]:
        """What is versioned and recorded but does not decide an answer."""
        return self.model_dump(mode="json", by_alias=True, include=FACTS)


def schema() -> dict[str, Any]:
    """The JSON Schema of app.yaml, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **AppFile.model_json_schema()}


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where, and how to mend it."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class Mistakes(InvalidInput):
    """The app folder has mistakes; each line says where, and how to mend it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class App:
    """An app folder that was read whole: what it declares, its prompts, its golden questions, its own scorers, its
    judge."""

    declared: AppFile
    prompt: PromptTexts
    golden: str
    scorers: str
    judge: Judge | None
    sources: Mapping[str, Mapping[str, bytes]]  # knowledge name -> document id -> bytes

    @property
    def facts(self) -> dict[str, object]:
        """What is versioned and recorded but does not decide an answer."""
        facts, part = self.declared.facts, self.declared.evals.judge
        if self.scorers:
            facts = {**facts, "scorers_file": self.declared.evals.scorers}
        if part is None or self.judge is None:
            return facts
        told = {"model": part.model, "repeats": part.repeats, "share": part.share, "labels": len(self.judge.labels)}
        return {**facts, "judge": {**told, "digest": self.judge.digest("")}}


def read_app(files: Mapping[str, bytes]) -> App:
    """Reads an app folder given as relative paths and bytes. Raises Mistakes with all that is wrong."""
    declared, lines = _declared(files)
    problems: list[Problem] = []

    def text_of(key: str, path: str | None, default: str) -> str:
        if path is None:
            return default
        try:
            return files[path.removeprefix("./")].decode("utf-8-sig")
        except KeyError:
            problems.append(_problem(lines, key, f"the file {path} does not exist beside {FILE}"))
        except UnicodeDecodeError:
            problems.append(_problem(lines, key, f"the file {path} is not UTF-8 text: save it as UTF-8"))
        return ""

    prompt = PromptTexts(
        text_of("prompt.system", declared.prompt.system, DEFAULT_SYSTEM),
        text_of("prompt.answer", declared.prompt.answer, _default_answer(bool(declared.knowledge))),
    )
    for key, text in (("prompt.system", prompt.system), ("prompt.answer", prompt.answer)):
        try:
            check_template(text)
        except InvalidInput as error:
            problems.append(_problem(lines, key, f"the template does not render: {error.message}"))
    golden = text_of("evals.golden", declared.evals.golden, "")
    scorers = text_of("evals.scorers", declared.evals.scorers, "")
    try:
        own = Confined(scorers, declared.evals.scorers or "") if scorers else None  # read, not run
        for name, mistake in mistakes(declared.targets, kinds(own)):
            problems.append(_problem(lines, f"targets.{name}", mistake))
    except InvalidInput as error:
        problems.append(_problem(lines, "evals.scorers", error.message))
    judge = None
    if asked := declared.evals.judge:
        try:
            labels = read_labels(text_of("evals.judge.labels", asked.labels, ""), asked.labels or "")
            rubric = text_of("evals.judge.rubric", asked.rubric, RUBRIC)
            judge = Judge(asked.model, rubric, labels, asked.repeats)
        except InvalidInput as error:
            problems.append(_problem(lines, "evals.judge.labels", error.message))
    elif "judge" in declared.targets:
        problems.append(_problem(lines, "targets.judge", "nothing measures it: declare a judge in `evals`"))
    names = [part.name for part in declared.knowledge]
    sources: dict[str, Mapping[str, bytes]] = {}
    for position, part in enumerate(declared.knowledge):
        key = f"knowledge.{position}"
        if names.count(part.name) > 1:
            problems.append(_problem(lines, f"{key}.name", f"{part.name} is used twice: names are unique"))
        if part.source is None:
            if part.readers:
                problems.append(
                    _problem(lines, f"{key}.readers", "rules are for a source: each push names its readers")
                )
            continue
        prefix = part.source.removeprefix("./").rstrip("/") + "/"
        found = {path.removeprefix(prefix): data for path, data in files.items() if path.startswith(prefix)}
        if not found:
            problems.append(
                _problem(lines, f"{key}.source", f"the folder {part.source} holds no documents beside {FILE}")
            )
        for pattern in part.readers:
            if found and not any(matches(pattern, path) for path in found):
                message = f"no document of {part.source} matches {pattern}: patterns are of paths in that folder"
                problems.append(_problem(lines, f"{key}.readers.{pattern}", message))
        sources[part.name] = found
    if problems:
        raise Mistakes(problems)
    return App(declared, prompt, golden, scorers, judge, sources)


def _default_answer(knowledge: bool) -> str:
    if not knowledge:
        return "{{ question }}"
    return "Text:\n{% for passage in passages %}{{ passage.text }}\n\n{% endfor %}Question: {{ question }}"


def _declared(files: Mapping[str, bytes]) -> tuple[AppFile, dict[str, int]]:
    if FILE not in files:
        raise Mistakes([Problem(FILE, 0, "", "the file does not exist: an app is a folder with an app.yaml")])
    try:
        node = yaml.compose(files[FILE].decode(), Loader=yaml.SafeLoader)
        content: Any = yaml.safe_load(files[FILE])
    except UnicodeDecodeError:
        raise Mistakes([Problem(FILE, 0, "", "not UTF-8 text: save it as UTF-8")]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or "cannot be read"
        message = f"not valid YAML: {said}; mind indentation and quotes"
        raise Mistakes([Problem(FILE, mark.line + 1 if mark else 0, "", message)]) from error
    if not isinstance(content, dict):
        raise Mistakes([Problem(FILE, 1, "", "must be a mapping of keys, beginning with `app: NAME`")])
    lines = dict(_lines(node, ""))
    problems = list(_repeated(node, ""))
    try:
        declared = AppFile.model_validate(content)
    except ValidationError as error:
        problems += [_explain(lines, e, content) for e in error.errors()]
        raise Mistakes(problems) from error
    if problems:
        raise Mistakes(problems)
    return declared, lines


def _explain(lines: Mapping[str, int], error: Any, content: object) -> Problem:
    """One of pydantic's findings, in a sentence that says how to mend it."""
    location = [str(part) for part in error["loc"]]
    key, parent = ".".join(location), ".".join(location[:-1])
    if error["type"] == "extra_forbidden":
        known = _keys_at(AppFile, location[:-1])
        close = difflib.get_close_matches(location[-1], known, n=1)
        mend = f"did you mean {close[0]}?" if close else f"known keys are {', '.join(known)}"
        return _problem(lines, key, f"this key is not known; {mend}")
    if error["type"] == "missing":
        return Problem(FILE, lines.get(parent, 1), key, "this key is required: add it")
    if error["type"] == "value_error":  # our own words
        return _problem(lines, key, str(error["ctx"]["error"]))
    given = error.get("input")
    shown = f" (it is {given!r})" if isinstance(given, str | int | float | bool) else ""
    return _problem(lines, key, f"{error['msg'][0].lower()}{error['msg'][1:]}{shown}")


def _keys_at(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        if field is None:
            continue  # an index into a list
        nested = [a for a in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(a, type)]
        model = next((a for a in nested if issubclass(a, BaseModel)), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _problem(lines: Mapping[str, int], key: str, message: str) -> Problem:
    parts = key.split(".")
    line = next((lines[k] for n in range(len(parts), 0, -1) if (k := ".".join(parts[:n])) in lines), 0)
    return Problem(FILE, line, key, message)


def _lines(node: yaml.Node | None, path: str) -> Iterator[tuple[str, int]]:
    """The line of every key, by its dotted path."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = f"{path}.{key.value}" if path else str(key.value)
            yield below, key.start_mark.line + 1
            yield from _lines(value, below)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield f"{path}.{index}", value.start_mark.line + 1
            yield from _lines(value, f"{path}.{index}")


def _repeated(node: yaml.Node | None, path: str) -> Iterator[Problem]:
    """Keys that stand twice: YAML would silently keep the last."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            below = f"{path}.{key.value}" if path else str(key.value)
            if below in seen:
                yield Problem(FILE, key.start_mark.line + 1, below, "this key stands twice: remove one")
            seen.add(below)
            yield from _repeated(value, below)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _repeated(value, f"{path}.{index}")
