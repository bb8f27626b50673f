"""The local models of this server: the built-in ones and those that its config names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

import msgspec

from proveout.configfile import Device, Mode, Role
from proveout.engine import gguf, hub, weights
from proveout.engine.template import ChatTemplate
from proveout.engine.weights import Weights
from proveout.errors import InvalidInput, StartRefused
from proveout.settings import LocalSettings, Settings

OVERHEAD = 320 << 20  # bytes of a generator besides weights and cache: interpreter, runtime, activations
# Bytes of KV cache where no memory was named: 24,000 and 14,000 tokens of the built-in model.
CACHE: Mapping[Mode, int] = {"fast": 320 << 20, "deterministic": 640 << 20}

_TEXT = ("response_format", "logprobs", "presence_penalty", "frequency_penalty")
_TOOLS = ("tools", "tool_choice", "parallel_tool_calls", "messages")


@dataclass(frozen=True)
class LocalModel:
    """A model, and how it runs. `digest` is of its files; `template` is None for encoders."""

    name: str
    weights: Weights
    device: Device
    instances: int
    mode: Mode
    memory: int  # bytes of one instance
    template: ChatTemplate | None
    digest: str

    @property
    def role(self) -> Role:
        return self.weights.role

    @cached_property
    def takes(self) -> frozenset[str]:
        """The fields of OpenAI's protocol beyond sampling that it takes; `messages` stands for turns of tools."""
        if self.template is None:
            return frozenset()
        return frozenset(_TEXT + _TOOLS if self.template.calls else _TEXT)

    @property
    def cache(self) -> int:
        """Bytes for the KV cache of one instance."""
        return self.memory - self.weights.size - OVERHEAD


def local_models(told: Settings) -> list[LocalModel]:
    """Every local model, served or not. Raises StartRefused naming the key of what cannot be.

    The built-in generator is left out where the config names another model that writes, and not this one too.
    """
    named = {given.name: given for given in told.models}
    found = [weights.generator(), weights.embedder()]
    builtin = {w.name: w for w in found}
    for given in named.values():
        path = hub.place(told, given) if given.hub else given.path
        if path is not None:
            found = [w for w in found if w.name != given.name] + [weights.at(given.name, path)]
        elif given.name not in builtin:
            raise StartRefused(f"models.{given.name}: say where it is, with `path` or `hub`.")
    if any(w.role == "chat" and w.name not in builtin for w in found):
        found = [w for w in found if w.name in named or w.role == "embed"]
    models = [_model(w, named.get(w.name, LocalSettings(w.name)), told.data / "cache") for w in found]
    needed = sum(m.memory * m.instances for m in models if m.role in told.serve)
    if told.memory is not None and needed > told.memory:
        raise StartRefused(
            f"engine.memory: the models need {needed >> 20} MiB, and there are {told.memory >> 20}: "
            "give models less `memory` or fewer `instances`, or leave roles out with --serve."
        )
    return models


def local_model(told: Settings, name: str, digest: str | None = None) -> LocalModel:
    """One of them. Raises StartRefused, also when its files are not of the `digest` that is given."""
    found = next((m for m in local_models(told) if m.name == name), None)
    if found is None:
        raise StartRefused(f"There is no local model {name!r}: the config's `models` names them.")
    if digest not in (None, found.digest):
        raise StartRefused(
            f"models.{name}: its files on disk are now of {found.digest}, and the server was started with {digest}: "
            "put them back, or start the server again."
        )
    return found


def _model(found: Weights, given: LocalSettings, cache: Path) -> LocalModel:
    least = found.size + OVERHEAD
    if found.role == "chat":
        least += CACHE[given.mode] // 10
        if given.device == "NPU":
            raise StartRefused(f"models.{found.name}.device: batches of answers run on CPU and GPU, not on NPU.")
    elif given.mode == "deterministic":
        raise StartRefused(f"models.{found.name}.mode: this is for models that write; leave it out.")
    memory = given.memory or found.size + OVERHEAD + (CACHE[given.mode] if found.role == "chat" else 0)
    if memory < least:
        raise StartRefused(f"models.{found.name}.memory: {memory >> 20} MiB are too few, it needs {least >> 20}.")
    template = None
    if found.role == "chat":
        try:
            template = ChatTemplate(*_template(found, given.chat_template))
        except InvalidInput as error:
            raise StartRefused(f"models.{found.name}: {error.message}") from error
    return LocalModel(
        name=found.name,
        weights=found,
        device=given.device,
        instances=given.instances,
        mode=given.mode,
        memory=memory,
        template=template,
        digest=weights.digest(found, cache),
    )


def _template(found: Weights, other: Path | None) -> Iterator[str]:
    """The text of the chat template, then the tokens that begin and end a sequence, as texts."""
    main = found.files[0]
    if main.suffix == ".gguf":
        facts = gguf.read(main)
        source, bos, eos = facts.template, facts.bos, facts.eos
    else:
        source, bos, eos = _of_folder(main.parent)
    if other is not None:
        source = other.read_text(encoding="utf-8")
    if not source:
        raise StartRefused(f"models.{found.name}: {main} has no chat template: name one with `chat_template`.")
    yield from (source, bos, eos)


def _of_folder(folder: Path) -> tuple[str, str, str]:
    """Of an IR folder, in the places where exporters put it."""
    config: dict[str, object] = {}
    if (folder / "tokenizer_config.json").is_file():
        config = msgspec.json.decode((folder / "tokenizer_config.json").read_bytes(), type=dict[str, object])
    source = config.get("chat_template")
    if (folder / "chat_template.jinja").is_file():
        source = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    elif not isinstance(source, str) and (folder / "openvino_tokenizer.xml").is_file():
        info = ElementTree.parse(folder / "openvino_tokenizer.xml").find("./rt_info/chat_template")  # noqa: S314
        source = None if info is None else info.get("value")
    return str(source or ""), _token(config.get("bos_token")), _token(config.get("eos_token"))


def _token(given: object) -> str:
    """A special token as tokenizer_config.json has it: its text, or a mapping with it."""
    text = given.get("content") if isinstance(given, dict) else given
    return text if isinstance(text, str) else ""
