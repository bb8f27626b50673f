"""Data sets of other tools as cases: Langfuse's dataset items, MLflow's evaluation records, OpenAI evals' samples.

All are JSON lines, or one JSON list. What they say of a right answer becomes a fact where it is short, else the
`reference`; the cases are of the origin `import`, and count once somebody has reviewed them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from proveout.errors import InvalidInput
from proveout.evals.cases import Case, Turn

Form = Literal["langfuse", "mlflow", "openai"]
_QUESTION = ("question", "query", "input", "prompt", "request", "text", "content")
_ANSWER = ("expected_response", "answer", "output", "response", "reference", "ground_truth", "ideal", "text", "content")
_SHORT = 12  # words of an ideal answer that must stand in ours; a longer one is a reference
_ROLES = ("system", "user", "assistant")
_ABOUT = ("id", "dataset_record_id", "ideal", "correct_label", "expected", "answer", "metadata", "tags")  # of a sample


class Imported(msgspec.Struct, frozen=True):
    """The cases of a foreign data set, and how many items were left out because that tool keeps them as archived."""

    cases: list[Case]
    archived: int = 0


def import_cases(text: str, file: str, form: Form, reviewed: str | None = None) -> Imported:
    """The cases of a foreign data set. Raises InvalidInput with the file and the line (of a JSON list: the number of
    the item) of every record that is not understood, or that asks with more than we would.

    A record without an id of its own gets one from its content, so that importing it again gives the same case.
    """
    cases: list[Case] = []
    problems: list[str] = []
    ids: set[str] = set()
    archived = 0
    for number, record in _records(text, file, problems):
        if form == "langfuse" and record.get("status") == "ARCHIVED":
            archived += 1
            continue
        try:
            case = _FORMS[form](record)
        except (InvalidInput, msgspec.ValidationError) as error:
            problems.append(f"{file}:{number}: {error}")
            continue
        if reviewed and not case.demands:
            problems.append(f"{file}:{number}: nothing says what a right answer holds: review it once it has `facts`")
        if case.id in ids:
            problems.append(f"{file}:{number}: the id {case.id!r} stands twice: ids are unique")
        ids.add(case.id)
        cases.append(msgspec.structs.replace(case, origin="import", reviewed=reviewed))
    if problems:
        raise InvalidInput("\n".join(problems))
    return Imported(cases, archived)


def _records(text: str, file: str, problems: list[str]) -> list[tuple[int, dict[str, Any]]]:
    lines: list[tuple[int, bytes]]
    if text.lstrip().startswith("["):
        try:
            items = msgspec.json.decode(text, type=list[msgspec.Raw])
        except msgspec.DecodeError as error:
            raise InvalidInput(f"{file}: {error}") from error
        lines = [(n, bytes(raw)) for n, raw in enumerate(items, start=1)]
    else:
        lines = [(n, line.encode()) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    found = []
    for number, line in lines:
        try:
            found.append((number, msgspec.json.decode(line, type=dict[str, Any])))
        except msgspec.DecodeError as error:
            problems.append(f"{file}:{number}: {error}")
    return found


def _langfuse(record: Mapping[str, Any]) -> Case:
    """`{"id", "input", "expectedOutput", "metadata", "status"}`, as the API and the export give them."""
    expected = record.get("expectedOutput", record.get("expected_output"))
    metadata = record.get("metadata")
    tags = metadata.get("tags", []) if isinstance(metadata, dict) else []
    return _case(record, record.get("input"), _expected([_said(expected, _ANSWER)]), tags)


def _mlflow(record: Mapping[str, Any]) -> Case:
    """`{"inputs", "expectations": {"expected_facts", "expected_response", "expected_retrieved_context"}, "tags"}`."""
    expected = record.get("expectations") or {}
    if not isinstance(expected, dict):
        raise InvalidInput("`expectations` is a mapping")
    facts = expected.get("expected_facts") or []
    if not isinstance(facts, list):
        raise InvalidInput("`expected_facts` is a list")
    retrieved = expected.get("expected_retrieved_context") or []
    fields = {
        **_expected([_said(expected.get("expected_response"), _ANSWER)], facts),
        "documents": [c["doc_uri"] for c in retrieved if isinstance(c, dict) and "doc_uri" in c],
    }
    tags = record.get("tags") or {}
    named = [f"{key}:{value}" for key, value in tags.items()] if isinstance(tags, dict) else tags
    return _case(record, record.get("inputs"), fields, named)


def _openai(record: Mapping[str, Any]) -> Case:
    """A sample of the evals repository, `{"input": [messages], "ideal": text or list}`: one of the list must stand in
    the answer. Or an item of the evals API, `{"item": {…}}`."""
    record = record["item"] if isinstance(record.get("item"), dict) else record
    ideal = record.get("ideal", record.get("correct_label", record.get("expected", record.get("answer"))))
    texts = [_said(value, _ANSWER) for value in (ideal if isinstance(ideal, list) else [ideal])]
    bare = {key: value for key, value in record.items() if key not in _ABOUT}
    alone = len(bare) == 1 and "input" in bare
    return _case(record, bare["input"] if alone else bare, _expected(texts), [])


_FORMS: Mapping[Form, Callable[[Mapping[str, Any]], Case]] = {
    "langfuse": _langfuse,
    "mlflow": _mlflow,
    "openai": _openai,
}


def _expected(texts: Sequence[str], facts: Sequence[Any] = ()) -> dict[str, Any]:
    """What a right answer holds, beside the facts that are given: one of the texts, if all are short; a long one is
    the reference."""
    said = [text for text in texts if text]
    if any(len(text.split()) > _SHORT for text in said):
        return {"facts": [*facts], "reference": said[0]}
    given = [said if len(said) > 1 else said[0]] if said else []
    return {"facts": [*facts, *(fact for fact in given if fact not in facts)]}


def _case(record: Mapping[str, Any], asked: object, fields: Mapping[str, Any], tags: object) -> Case:
    turns = _turns(asked)
    question = "" if turns else _said(asked, _QUESTION)
    if not turns and not question.strip():
        raise InvalidInput(f"no question was found: looked for messages, or for one of {', '.join(_QUESTION)}")
    if beside := _beside(asked):
        raise InvalidInput(
            f"{', '.join(f'`{key}`' for key in beside)} would be lost: a case asks one text or a conversation; write "
            "it into that, or take it out"
        )
    given = record.get("id") or record.get("dataset_record_id")
    content = msgspec.json.encode([turns, question, fields], order="deterministic")
    plain = {
        "id": str(given) if given else "import-" + hashlib.sha256(content).hexdigest()[:16],
        **({"conversation": turns} if len(turns) > 1 else {"question": turns[0]["content"] if turns else question}),
        **fields,
        "tags": [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else [],
    }
    return msgspec.convert(plain, Case)


def _beside(asked: object) -> list[str]:
    """The keys of an input, not empty, beside the one that is asked."""
    if not isinstance(asked, dict):
        return []
    keys = ("messages", "input", *_QUESTION) if _turns(asked) else _QUESTION
    taken = next((key for key in keys if key in asked), None)
    return [key for key, value in asked.items() if taken and key != taken and value not in (None, "", [], {})]


def _turns(asked: object) -> list[dict[str, str]]:
    """The messages of a conversation up to the user's last; none where it is no conversation."""
    if isinstance(asked, dict):
        asked = asked.get("messages", asked.get("input"))
    if not isinstance(asked, list):
        return []
    turns = []
    for message in asked:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):  # parts: the texts of them
            content = "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict)).strip()
        if not isinstance(content, str) or not content or message.get("role") not in _ROLES:
            raise InvalidInput(f"a message has a role out of {', '.join(_ROLES)}, and text")
        turns.append({"role": message["role"], "content": content})
    while turns and turns[-1]["role"] != "user":
        turns.pop()
    return [msgspec.to_builtins(msgspec.convert(turn, Turn)) for turn in turns]


def _said(value: object, keys: tuple[str, ...]) -> str:
    """A text, or that of a mapping's first known key, or of its only one."""
    if isinstance(value, dict):
        texts = [text for text in value.values() if isinstance(text, str)]
        value = next((value[key] for key in keys if key in value), texts[0] if len(value) == len(texts) == 1 else "")
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        return _said(value[-1], keys)
    return value if isinstance(value, str) else "" if value is None else str(value)
