"""The generator: a GGUF model in continuous batches, served over a Unix socket by one thread.

One thread, because a step of the pipeline holds the GIL: it reads what has arrived, starts what it may,
takes one step for all running answers, sends what came out, and begins again.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import secrets
import shutil
import socket
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openvino as ov
import openvino_genai as genai

from proveout.engine import gguf
from proveout.engine.channel import Accepted, Client, Done, Door, Failed, Generate, Piece, Request
from proveout.engine.detokenise import Detokeniser
from proveout.errors import InvalidInput, StartRefused

MAX_RUNNING = 16  # answers in one batch
MAX_WAITING = 64  # answers behind them; more are refused
BATCH_TOKENS = 256  # tokens of one step: keeps it under 0.2 s, so that cancels and new answers soon count
LONGEST_TOKEN = 32  # characters: longer prompts than that times the context are refused unread

_CONTROL = re.compile(r"<(?=\|\w+\|>)")


def prepare(weights: Path, cache: Path) -> Path:
    """The model as OpenVINO IR with its tokenizer, in a folder under `cache`; converted at the first start.

    A folder appears whole or not at all, and two starts at once convert once.
    """
    stat = weights.stat()
    mark = f"{weights.name} {stat.st_size} {stat.st_mtime_ns} {genai.__version__}"
    ready = cache / f"{weights.stem}-{hashlib.sha256(mark.encode()).hexdigest()[:16]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "converting.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            draft = cache / "converting"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            link = draft / weights.name  # the conversion saves its files beside the GGUF that it is given
            link.symlink_to(weights.absolute())
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
    stop: tuple[str, ...]


@dataclass(slots=True)
class _Running:
    """One answer in the batch."""

    handle: Any
    text: Detokeniser
    prompt_tokens: int
    completion_tokens: int = 0


@dataclass(slots=True)
class Generator:
    """The model and its answers under way. `weights` is a GGUF file; `cache` keeps its conversion."""

    weights: Path
    cache: Path
    _waiting: deque[_Asked] = field(default_factory=deque)
    _running: dict[Client, _Running] = field(default_factory=dict)
    _count: int = 0
    _context: int = field(init=False)
    _pipe: Any = field(init=False)
    _tokenizer: Any = field(init=False)

    def __post_init__(self) -> None:
        if not self.weights.is_file():
            raise StartRefused(f"No generator weights at {self.weights}: run `make setup` to install them.")
        self._context = gguf.context_length(self.weights)
        scheduler = genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = BATCH_TOKENS
        scheduler.max_num_seqs = MAX_RUNNING
        scheduler.enable_prefix_caching = True
        folder = prepare(self.weights, self.cache)
        self._pipe = genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU")
        self._tokenizer = self._pipe.get_tokenizer()
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
        tokens, config = self._prompt(Generate(messages=[("user", "Hello")], max_tokens=1))
        handle = self._pipe.add_request(self._next(), tokens, config)  # without its handle it would be dropped
        while handle.get_status() == genai.GenerationStatus.RUNNING:
            self._pipe.step()

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _take(self, door: Door, client: Client, request: Request | None) -> None:
        if request is None:
            self._waiting = deque(w for w in self._waiting if w.client is not client)
            if running := self._running.pop(client, None):
                running.handle.cancel()
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
                self._waiting.append(_Asked(client, tokens, config, request.stop))

    def _prompt(self, request: Generate) -> tuple[ov.Tensor, Any]:
        """The conversation in the model's own chat template as tokens [1, n], and the generation's settings.

        Raises InvalidInput when it is too long.
        """
        if sum(len(content) for _, content in request.messages) > LONGEST_TOKEN * self._context:
            raise self._too_long()
        messages = [{"role": role, "content": defuse(content)} for role, content in request.messages]
        text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        tokens = self._tokenizer.encode(text, add_special_tokens=False, max_length=self._context).input_ids
        if tokens.size == self._context:  # as long as it may be, or cut there
            raise self._too_long()
        return tokens, _config(request, self._context - tokens.size, self._tokenizer.get_eos_token_id())

    def _too_long(self) -> InvalidInput:
        return InvalidInput(f"The prompt is too long: prompt and answer together may have {self._context} tokens.")

    def _start(self, asked: _Asked) -> None:
        handle = self._pipe.add_request(self._next(), asked.tokens, asked.config)
        text = Detokeniser(self._tokenizer.decode, asked.stop)
        self._running[asked.client] = _Running(handle, text, asked.tokens.size)

    def _drain(self, door: Door, client: Client, running: _Running) -> None:
        ended = False
        reason = genai.GenerationFinishReason.NONE
        piece = ""
        while running.handle.can_read():
            for output in running.handle.read().values():
                running.completion_tokens += len(output.generated_ids)
                piece += running.text.push(output.generated_ids)
                reason = output.finish_reason
        status = running.handle.get_status()
        if running.text.stopped:
            running.handle.stop()
            ended = True
        elif status != genai.GenerationStatus.RUNNING:
            piece += running.text.end()
            ended = True
        if piece:
            door.send(client, Piece(piece))
        if not ended:
            return
        del self._running[client]
        if status == genai.GenerationStatus.IGNORED:
            door.send(client, Failed("failed", "The generator ran out of memory for this answer."))
            return
        length = reason == genai.GenerationFinishReason.LENGTH and not running.text.stopped
        usage = running.prompt_tokens, running.completion_tokens
        door.send(client, Done("length" if length else "stop", *usage))


def defuse(content: str) -> str:
    """Break the chat template's control tokens in a message (`<|im_end|>` -> `< |im_end|>`).

    The template pastes messages into text that is tokenised as a whole: unbroken, a message could end its
    own turn and speak as another role.
    """
    return _CONTROL.sub("< ", content)


def _config(request: Generate, room: int, end: int) -> Any:
    config = genai.GenerationConfig()
    config.apply_chat_template = False
    config.set_eos_token_id(end)
    config.max_new_tokens = min(request.max_tokens, room)
    if request.temperature > 0:
        config.do_sample = True
        config.temperature = request.temperature
        config.top_p = request.top_p
        config.rng_seed = secrets.randbits(32) if request.seed is None else request.seed % (1 << 32)
    config.validate()
    return config
