"""app.yaml: every mistake with file, line, key and mend; what is not wrong is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proveout.errors import InvalidInput
from proveout.releases.manifest import Mistakes, read_app

GOOD = """\
app: helpdesk
purpose: Answer questions.
owners:
  accountable: someone@example.com
model:
  use: echo
knowledge:
  - name: handbook
    source: ./docs/
"""


def read(text: str | bytes, **files: bytes) -> object:
    raw = text if isinstance(text, bytes) else text.encode()
    return read_app({"app.yaml": raw, "docs/a.md": b"hello", **files})


def mistakes(text: str | bytes) -> list[str]:
    with pytest.raises(Mistakes) as caught:
        read(text)
    return caught.value.message.splitlines()


def test_a_small_manifest_has_safe_defaults() -> None:
    app = read_app({"app.yaml": GOOD.encode(), "docs/a.md": b"hello", "docs/sub/b.txt": b"there"})
    assert app.declared.grounding.otherwise == "quote" and app.declared.model.parameters.temperature == 0
    assert app.sources == {"handbook": {"a.md": b"hello", "sub/b.txt": b"there"}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("purpose:", "porpose:"), "app.yaml:2: porpose: this key is not known; did you mean purpose?"),
        (("  use: echo", "  name: echo"), "app.yaml:5: model.use: this key is required: add it"),
        (("app: helpdesk", "app: Help Desk"), "app.yaml:1: app: string should match pattern"),
        (
            ("    source: ./docs/", "    source: ./nowhere/"),
            "app.yaml:9: knowledge.0.source: the folder ./nowhere/ holds",
        ),
        (
            ("    source: ./docs/", "    source: docs\n    top_k: 900"),
            "app.yaml:10: knowledge.0.top_k: input should be",
        ),
        (
            ("    source: ./docs/", "    source: docs\n    topk: 3"),
            "app.yaml:10: knowledge.0.topk: this key is not known; did",
        ),
        (("app: helpdesk", "app: helpdesk\napp: twice"), "app.yaml:2: app: this key stands twice: remove one"),
        (("model:", "prompt: {system: gone.md}\nmodel:"), "app.yaml:5: prompt.system: the file gone.md does not exist"),
        (("model:", "guard: {input: []}\nmodel:"), "app.yaml:5: guard: this key is not known"),
    ],
)
def test_a_mistake_is_named_with_line_key_and_mend(change: tuple[str, str], said: str) -> None:
    assert any(line.startswith(said) for line in mistakes(GOOD.replace(*change))), mistakes(GOOD.replace(*change))


def test_all_mistakes_are_named_at_once() -> None:
    assert len(mistakes("app: x\nmodle: {}\nowners: {}\n")) == 4  # modle, owners.accountable, model, purpose


@pytest.mark.parametrize("text", ["", "- a", "a: [", b"\xff\xfe", "app: {{"])
def test_what_is_not_a_mapping_is_one_sentence(text: str | bytes) -> None:
    assert len(mistakes(text)) == 1 and mistakes(text)[0].startswith("app.yaml")


def test_a_template_that_does_not_render_is_a_mistake() -> None:
    with pytest.raises(Mistakes, match=r"app.yaml:5: prompt.answer: the template does not render: line 2"):
        read(GOOD.replace("model:", "prompt: {answer: a.md}\nmodel:"), **{"a.md": b"fine\n{{ nothing"})
    with pytest.raises(Mistakes, match="'secret' is undefined"):
        read(GOOD.replace("model:", "prompt: {answer: a.md}\nmodel:"), **{"a.md": b"{{ secret }}"})
    with pytest.raises(Mistakes, match="unsafe"):
        read(GOOD.replace("model:", "prompt: {answer: a.md}\nmodel:"), **{"a.md": b"{{ question.__class__.mro() }}"})


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_named(raw: bytes) -> None:
    try:
        read(raw)
    except InvalidInput as error:
        assert error.message
