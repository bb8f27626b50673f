"""Prompt templates: Jinja in a sandbox, where a missing name is an error."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from proveout.errors import InvalidInput


def render(text: str, values: Mapping[str, object]) -> str:
    """The template's text with these values. Raises jinja2.TemplateError."""
    return _template(text).render(values).strip()


def check_template(text: str) -> None:
    """Raises InvalidInput when `text` is not a template that renders with a question, passages and quotes."""
    try:
        render(text, {"question": "?", "passages": (), "quotes": ()})
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise InvalidInput(f"{f'line {line}: ' if line else ''}{error}") from error


@lru_cache(maxsize=256)
def _template(text: str) -> Template:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(text)
