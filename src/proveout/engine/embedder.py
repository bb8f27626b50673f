"""The embedder: MiniLM behind a Unix socket, one thread; single texts overtake long batches.

A query is one text and somebody waits for it; documents come by the hundred. So every inference is small
(minilm.batches), and before each the socket is looked at and waiting single texts go first.
"""

from __future__ import annotations

import socket
from collections import deque
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np

from proveout.engine.channel import Accepted, Client, Door, Embed, Failed, Match, Request, Vectors
from proveout.engine.minilm import DIMENSIONS, STREAMS, Encoder, batches
from proveout.engine.minilm import Vectors as Rows

MAX_TEXTS = 2048  # texts of one request, as in OpenAI's API
MAX_PENDING = 16_384  # texts waiting over all requests; more are refused
MAX_MATCHED = 16  # texts beside one question: somebody waits for them, and nothing else runs meanwhile
WINDOW = 64  # waiting texts looked at to find ones of like length


@dataclass(slots=True, eq=False)
class _Job:
    """One request: its rows fill in any order."""

    client: Client
    rows: Rows
    missing: int
    tokens: int


@dataclass(frozen=True, slots=True)
class _Item:
    job: _Job
    row: int
    tokens: list[int]


class Embedder:
    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._single: deque[_Item] = deque()
        self._bulk: deque[_Item] = deque()

    def serve(self, listener: socket.socket) -> None:
        """Answer on this listening socket until the process ends."""
        door = Door(listener)
        while True:
            busy = bool(self._single or self._bulk)
            for client, request in door.poll(0 if busy else None):
                self._take(door, client, request)
            queue = self._single or self._bulk
            if queue:
                self._infer(door, queue)

    def _take(self, door: Door, client: Client, request: Request | None) -> None:
        if request is None:
            self._single = deque(i for i in self._single if i.job.client is not client)
            self._bulk = deque(i for i in self._bulk if i.job.client is not client)
        elif isinstance(request, Match):
            self._match(door, client, request)
        elif not isinstance(request, Embed):
            door.send(client, Accepted())
        elif not 0 < len(request.texts) <= MAX_TEXTS:
            door.send(client, Failed("invalid_request", f"Send 1 to {MAX_TEXTS} texts at a time."))
        elif len(self._single) + len(self._bulk) + len(request.texts) > MAX_PENDING:
            door.send(client, Failed("overloaded", f"More than {MAX_PENDING} texts are waiting already."))
        else:
            door.send(client, Accepted())
            tokens = self._encoder.tokens(request.texts)
            rows = np.empty((len(tokens), DIMENSIONS), np.float32)
            job = _Job(client, rows, len(tokens), sum(map(len, tokens)))
            queue = self._single if len(tokens) == 1 else self._bulk
            queue.extend(_Item(job, row, t) for row, t in enumerate(tokens))

    def _match(self, door: Door, client: Client, request: Match) -> None:
        if not 0 < len(request.texts) <= MAX_MATCHED:
            door.send(client, Failed("invalid_request", f"Send 1 to {MAX_MATCHED} texts with a question."))
            return
        found = self._encoder.matches(request.question, request.texts)
        door.send(client, Accepted(), Vectors(found.astype("<f4").tobytes(), 0))

    def _infer(self, door: Door, queue: deque[_Item]) -> None:
        """Inferences side by side: the oldest waiting text and others of like length, and other such groups."""
        window = list(islice(queue, WINDOW))
        groups = sorted(batches([len(i.tokens) for i in window]), key=min)[:STREAMS]
        vectors = self._encoder.vectors([[window[n].tokens for n in group] for group in groups])
        taken = [n for group in groups for n in group]
        for n in sorted(taken, reverse=True):
            del queue[n]
        for n, vector in zip(taken, chain(*vectors), strict=True):
            item = window[n]
            item.job.rows[item.row] = vector
            item.job.missing -= 1
            if item.job.missing == 0:
                data = item.job.rows.astype("<f4").tobytes()
                door.send(item.job.client, Vectors(data, item.job.tokens))
