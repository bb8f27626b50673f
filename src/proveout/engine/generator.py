"""The generator: a language model in continuous batches, served over a Unix socket by one thread.

One thread, because a step of the pipeline holds the GIL: it reads what has arrived, starts what it may,
takes one step for all running answers, sends what came out, and begins again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import secrets
import shutil
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openvino as ov
import openvino_genai as genai

from proveout.engine import calls, gguf, weights
from proveout.engine.channel import (
    Accepted,
    Client,
    Done,
    Door,
    Failed,
    Generate,
    Logprob,
    Look,
    Piece,
    Request,
    Seen,
    ToolPiece,
)
from proveout.engine.detokenise import Bytes, Characters, Detokeniser, Window
from proveout.engine.local import LocalModel
from proveout.errors import InvalidInput, StartRefused

MAX_RUNNING = 16  # answers in one batch
MAX_WAITING = 64  # answers behind them; more are refused
BATCH_TOKENS = 256  # tokens of one step: keeps it under 0.2 s, so that cancels and new answers soon count
BLOCK = 32  # tokens of one block of the cache, as OpenVINO's CPU plugin has them
CACHE_BYTES = {"fast": 1.1875, "deterministic": 4.0}  # of one number in the cache: u8 with its scales; f32
LONGEST_TOKEN = 32  # characters: longer prompts than that times the context are refused unread

PROBE = "Hello  wörld,\n\t it's 2026 \N{SLIGHTLY SMILING FACE}. "  # whatever tokenizers treat in different ways

# The cache too: what runs beside an answer moves its log probabilities by 1e-2 with u8, 7e-4 with f16, 1e-5 with f32.
_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}
_STATE = re.compile(r'variable_id="([^"]+)"[^>]*variable_shape="\?,(\d+),\?,(\d+)"')
_SPECIAL = re.compile(rb"[<\[].+[>\]]|\xef\xbd\x9c.+", re.DOTALL)


def prepare(path: Path, cache: Path) -> Path:
    """A model as OpenVINO IR with its tokenizer, in a folder. A GGUF file is converted at its first start.

    A folder under `cache` appears whole or not at all, and two starts at once convert once.
    """
    if path.suffix != ".gguf":
        return path.parent
    stat = path.stat()
    mark = f"{path.name} {stat.st_size} {stat.st_mtime_ns} {genai.__version__}"
    ready = cache / f"{path.stem}-{hashlib.sha256(mark.encode()).hexdigest()[:16]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "converting.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            draft = cache / "converting"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            link = draft / path.name  # the conversion saves its files beside the GGUF that it is given
            link.symlink_to(path.absolute())
            genai.Tokenizer(str(link), enable_save_ov_model=True)
            genai.ContinuousBatchingPipeline(str(link), genai.SchedulerConfig(), "CPU", {"enable_save_ov_model": True})
            draft.rename(ready)
    return ready


@dataclass(frozen=True, slots=True)
class _Asked:
    """One answer to be started; tokens [1, n]."""

    client: Client
    tokens: ov.Tensor
    config: Any
    request: Generate


@dataclass(slots=True)
class _Running:
    """One answer in the batch."""

    handle: Any
    text: Detokeniser
    calls: calls.CallReader | None
    prompt_tokens: int
    scored: bool  # log probabilities were asked for
    completion_tokens: int = 0
    logprobs: list[Logprob] = field(default_factory=list)  # of tokens whose text was not sent yet


class Generator:
    """The model and its answers under way; `cache` keeps the conversion of a GGUF file.

    Raises StartRefused for a model that cannot run here.
    """

    def __init__(self, model: LocalModel, cache: Path) -> None:
        if model.template is None:
            raise StartRefused(f"{model.name} makes embeddings and no answers.")
        self._template = model.template
        folder = prepare(model.weights.files[0], cache)
        blocks = int(model.cache / (BLOCK * _numbers_per_token(folder) * CACHE_BYTES[model.mode]))
        self._context = min(_context(model.weights.files[0]), (blocks - 1) * BLOCK)
        scheduler = genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = BATCH_TOKENS
        scheduler.max_num_seqs = MAX_RUNNING
        scheduler.num_kv_blocks = blocks
        scheduler.enable_prefix_caching = True
        exact = _EXACT if model.mode == "deterministic" else {}
        self._pipe = genai.ContinuousBatchingPipeline(str(folder), scheduler, _device(model.device), exact)
        self._tokenizer = self._pipe.get_tokenizer()
        self._eos: int = self._tokenizer.get_eos_token_id()
        self._stops: set[int] = {self._eos, *self._pipe.get_config().stop_token_ids}
        vocabulary: dict[bytes, int] = self._tokenizer.get_vocab()
        self._token = {number: token for token, number in vocabulary.items()}
        control = {token: number for token, number in vocabulary.items() if self._is_control(token, number)}
        self._defuse = defuser([token.decode() for token in control])
        self._bytes = {n: token for n, token in self._token.items() if token not in control}
        self._in_bytes = self._are_bytes()
        self._waiting: deque[_Asked] = deque()
        self._running: dict[Client, _Running] = {}
        self._count = self._prompt_tokens = self._completion_tokens = 0
        self._warm_up()

    def serve(self, listener: socket.socket) -> None:
        """Answer on this listening socket until the process ends."""
        door = Door(listener)
        while True:
            for client, request in door.poll(0 if self._running else None):
                self._take(door, client, request)
            while self._waiting and len(self._running) < MAX_RUNNING:
                self._start(self._waiting.popleft())
            if self._running:
                self._pipe.step()
                for client, running in list(self._running.items()):
                    self._drain(door, client, running)

    def _warm_up(self) -> None:
        """One token: the first step compiles kernels for 0.4 s, which no caller shall wait for."""
        tokens, config = self._prompt(Generate(turns=[{"role": "user", "content": "Hello"}], max_tokens=1))
        handle = self._pipe.add_request(self._next(), tokens, config)  # without its handle it would be dropped
        while handle.get_status() == genai.GenerationStatus.RUNNING:
            self._pipe.step()

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _is_control(self, token: bytes, number: int) -> bool:
        """Whether a token is no text: decoding leaves it out."""
        return _SPECIAL.fullmatch(token) is not None and not self._tokenizer.decode([number])

    def _are_bytes(self) -> bool:
        """Whether the text of tokens is their bytes, one after the other, as byte-level BPE has it."""
        numbers = self._tokenizer.encode(PROBE, add_special_tokens=False).input_ids.data[0].tolist()
        return b"".join(self._bytes.get(n, b"") for n in numbers) == PROBE.encode()

    def _take(self, door: Door, client: Client, request: Request | None) -> None:
        if request is None:
            self._waiting = deque(w for w in self._waiting if w.client is not client)
            if running := self._running.pop(client, None):
                running.handle.cancel()
        elif isinstance(request, Look):
            door.send(client, Accepted(), self._seen())
        elif not isinstance(request, Generate):
            door.send(client, Accepted())
        elif len(self._waiting) + len(self._running) >= MAX_WAITING + MAX_RUNNING:
            door.send(client, Failed("overloaded", f"{MAX_WAITING} answers are waiting already."))
        elif client in self._running or any(w.client is client for w in self._waiting):
            door.send(client, Failed("invalid_request", "One connection carries one request."))
        else:
            try:
                tokens, config = self._prompt(request)
            except (InvalidInput, RuntimeError) as error:  # OpenVINO raises RuntimeError for bad parameters
                door.send(client, Failed("invalid_request", str(error)))
            else:
                door.send(client, Accepted())
                self._waiting.append(_Asked(client, tokens, config, request))

    def _seen(self) -> Seen:
        return Seen(
            running=len(self._running),
            waiting=len(self._waiting),
            requests=self._count - 1,  # without the one that warmed up
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            cache=self._pipe.get_metrics().cache_usage / 100,
        )

    def _prompt(self, request: Generate) -> tuple[ov.Tensor, Any]:
        """The conversation in the model's own chat template as tokens [1, n], and the generation's settings.

        Raises InvalidInput when it is too long, or has what the template cannot take.
        """
        if isinstance(request.turns, str):
            text = request.turns
        else:
            tools = request.tools or any("tool_calls" in t or t["role"] == "tool" for t in request.turns)
            if tools and self._template.calls is None:
                raise InvalidInput("tools: this model's chat template has no place for tools and their calls.")
            text = self._template.render(self._defuse(request.turns), self._defuse(request.tools))
        if len(text) > LONGEST_TOKEN * self._context:
            raise self._too_long()
        tokens = self._tokenizer.encode(text, add_special_tokens=False, max_length=self._context).input_ids
        if tokens.size == self._context:  # as long as it may be, or cut there
            raise self._too_long()
        return tokens, self._config(request, self._context - tokens.size)

    def _config(self, request: Generate, room: int) -> Any:
        config = genai.GenerationConfig()
        config.apply_chat_template = False
        config.set_eos_token_id(self._eos)
        config.stop_token_ids = self._stops
        config.max_new_tokens = min(request.max_tokens, room)
        config.presence_penalty = request.presence_penalty
        config.frequency_penalty = request.frequency_penalty
        config.logprobs = int(request.logprobs)
        if request.tools:
            assert self._template.calls is not None  # `_prompt` has refused
            config.structured_output_config = calls.grammar(
                request.tools, self._template.calls, request.choice, request.parallel
            )
        elif request.schema is not None:
            config.structured_output_config = genai.StructuredOutputConfig(json_schema=request.schema)
        if request.temperature > 0:
            config.do_sample = True
            config.temperature = request.temperature
            config.top_p = request.top_p
            config.rng_seed = secrets.randbits(32) if request.seed is None else request.seed % (1 << 32)
        config.validate()
        return config

    def _too_long(self) -> InvalidInput:
        return InvalidInput(f"The prompt is too long: prompt and answer together may have {self._context} tokens.")

    def _start(self, asked: _Asked) -> None:
        handle = self._pipe.add_request(self._next(), asked.tokens, asked.config)
        characters: Characters = Bytes(self._bytes) if self._in_bytes else Window(self._tokenizer.decode)
        text = Detokeniser(characters, asked.request.stop)
        form = self._template.calls if asked.request.tools else None
        reader = calls.CallReader(form) if form is not None else None
        self._running[asked.client] = _Running(handle, text, reader, asked.tokens.size, asked.request.logprobs)
        self._prompt_tokens += asked.tokens.size

    def _drain(self, door: Door, client: Client, running: _Running) -> None:
        ended = False
        reason = genai.GenerationFinishReason.NONE
        text = ""
        while running.handle.can_read():
            for output in running.handle.read().values():
                running.completion_tokens += len(output.generated_ids)
                self._completion_tokens += len(output.generated_ids)
                text += running.text.push(output.generated_ids)
                reason = output.finish_reason
                if running.scored:
                    running.logprobs += self._logprobs(output)
        status = running.handle.get_status()
        if running.text.stopped:
            running.handle.stop()
            ended = True
        elif status != genai.GenerationStatus.RUNNING:
            text += running.text.end()
            ended = True
        door.send(client, *_pieces(running, text, ended))
        if not ended:
            return
        del self._running[client]
        if status == genai.GenerationStatus.IGNORED:
            door.send(client, Failed("failed", "The generator ran out of memory for this answer."))
            return
        usage = running.prompt_tokens, running.completion_tokens
        if reason == genai.GenerationFinishReason.LENGTH and not running.text.stopped:
            door.send(client, Done("length", *usage))
        else:
            called = running.calls is not None and running.calls.called
            door.send(client, Done("tool_calls" if called else "stop", *usage))

    def _logprobs(self, output: Any) -> list[Logprob]:
        """Of the tokens that are text."""
        pairs = zip(output.generated_ids, output.generated_log_probs, strict=True)
        return [Logprob(self._token[number], value) for number, value in pairs if number not in self._stops]


def _pieces(running: _Running, text: str, ended: bool) -> list[Piece | ToolPiece]:
    if running.calls is not None:
        return [*running.calls.push(text), *(running.calls.end() if ended else ())]
    if not text and not (ended and running.logprobs):
        return []
    logprobs, running.logprobs = tuple(running.logprobs), []
    return [Piece(text, logprobs)]


def defuser(tokens: list[str]) -> Callable[[Any], Any]:
    """A function that breaks the model's control tokens in all texts of a value (`<|im_end|>` -> `< |im_end|>`).

    The template pastes messages into text that is tokenised as a whole: unbroken, a message could end its
    own turn and speak as another role.
    """
    known = re.compile("|".join(re.escape(t) for t in sorted(tokens, key=len, reverse=True)) or r"(?!)")

    def defuse(value: Any) -> Any:
        if isinstance(value, str):
            return known.sub(lambda found: f"{found[0][0]} {found[0][1:]}", value)
        if isinstance(value, Mapping):
            return {defuse(k): defuse(v) for k, v in value.items()}
        return [defuse(v) for v in value] if isinstance(value, list) else value

    return defuse


def _numbers_per_token(folder: Path) -> int:
    """Numbers that the cache keeps for one token: keys and values of all layers and heads."""
    states = _STATE.findall((folder / weights.IR).read_text(encoding="utf-8"))
    shapes = {name: int(heads) * int(width) for name, heads, width in states}
    if not shapes:
        raise StartRefused(f"{folder} is not a language model with a cache: export it with stateful attention.")
    return sum(shapes.values())


def _context(path: Path) -> int:
    """Tokens of prompt and answer together."""
    if path.suffix == ".gguf":
        return gguf.read(path).context
    try:
        return int(json.loads((path.parent / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"])
    except (OSError, ValueError, KeyError) as error:
        raise StartRefused(f"{path.parent}: config.json does not say max_position_embeddings.") from error


def _device(named: str) -> str:
    if named != "AUTO":
        return named
    return next((d for d in ov.Core().available_devices if d.startswith("GPU")), "CPU")
