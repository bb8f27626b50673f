"""Sentence embeddings: all-MiniLM-L6-v2 as an OpenVINO graph built straight from its safetensors.

The graph is BERT's encoder (Devlin et al. 2019, arXiv:1810.04805; post-layer-norm, erf GELU) with mean
pooling over the real tokens and L2 normalisation (Reimers & Gurevych 2019, arXiv:1908.10084), so that its
numbers are sentence-transformers'. Shapes: B texts, T tokens (the longest of the batch), H 384, N 12 heads.
"""

from __future__ import annotations

import json
import os
import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as op
from tokenizers import Encoding, Tokenizer

from proveout.domain import Excerpts
from proveout.errors import StartRefused
from proveout.language import content_words

DIMENSIONS = 384
BATCH_TEXTS = 16
BATCH_TOKENS = 256  # padded tokens of one inference: 45 ms on one core; twice as many are hardly faster per token
STREAMS = min(os.cpu_count() or 1, 8)  # inferences side by side
READ = 384  # texts whose token vectors are kept: at most 75 MB
CHARACTERS = 16_384  # of a text that are looked at: 256 tokens are fewer, and a megabyte would stall the rest

Vectors = NDArray[np.float32]
Weights = dict[str, NDArray[np.float32]]


def read_safetensors(path: Path) -> Weights:
    """The F32 tensors of a safetensors file: u64 header length, JSON header, raw little-endian data."""
    raw = np.memmap(path, dtype=np.uint8, mode="r")
    (length,) = struct.unpack("<Q", raw[:8].tobytes())
    header = json.loads(raw[8 : 8 + length].tobytes())
    data = raw[8 + length :]
    tensors: Weights = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = entry["data_offsets"]
            tensors[name] = np.frombuffer(data[begin:end].tobytes(), "<f4").reshape(entry["shape"])
    return tensors


def _dense(x: ov.Output, w: Weights, name: str) -> ov.Output:
    """x [..., in] -> [..., out] with the weight [out, in] as torch stores it."""
    product = op.matmul(x, op.constant(w[f"{name}.weight"]), False, True)
    return op.add(product, op.constant(w[f"{name}.bias"]))


def _norm(x: ov.Output, w: Weights, name: str, epsilon: float) -> ov.Output:
    centred = op.mvn(x, op.constant(np.array([-1], np.int64)), True, epsilon, "inside_sqrt")
    scaled = op.multiply(centred, op.constant(w[f"{name}.weight"]))
    return op.add(scaled, op.constant(w[f"{name}.bias"]))


def _attention(x: ov.Output, mask: ov.Output, w: Weights, name: str, heads: int) -> ov.Output:
    """Multi-head self-attention: x [B, T, H], additive mask [B, 1, 1, T] -> [B, T, H]."""

    def split(part: str) -> ov.Output:
        projected = _dense(x, w, f"{name}.self.{part}")
        shaped = op.reshape(projected, op.constant(np.array([0, 0, heads, -1], np.int64)), True)
        return op.transpose(shaped, op.constant(np.array([0, 2, 1, 3], np.int64)))

    mixed = op.scaled_dot_product_attention(split("query"), split("key"), split("value"), mask)
    merged = op.transpose(mixed, op.constant(np.array([0, 2, 1, 3], np.int64)))
    return _dense(op.reshape(merged, op.constant(np.array([0, 0, -1], np.int64)), True), w, f"{name}.output.dense")


def build(weights_dir: Path) -> ov.Model:
    """The graph: `ids` [B, T] i64 and `mask` [B, T] f32 (1 for a token, 0 for padding) -> [B, H] f32, the vectors of
    the texts, and [B, T, H] f32, those of their tokens."""
    config = json.loads((weights_dir / "config.json").read_text())
    epsilon, heads = float(config["layer_norm_eps"]), int(config["num_attention_heads"])
    w = read_safetensors(weights_dir / "model.safetensors")

    ids = op.parameter([-1, -1], ov.Type.i64, "ids")
    mask = op.parameter([-1, -1], ov.Type.f32, "mask")
    zero, one, last = (op.constant(np.array(n, np.int64)) for n in (0, 1, -1))

    words = op.gather(op.constant(w["embeddings.word_embeddings.weight"]), ids, zero)
    # Every token is of type 0 here, so its type embedding is a constant and rides on the positions.
    positions = w["embeddings.position_embeddings.weight"] + w["embeddings.token_type_embeddings.weight"][0]
    length = op.gather(op.shape_of(ids), op.constant(np.array([1], np.int64)), zero)
    start, step = (op.constant(np.array([n], np.int64)) for n in (0, 1))
    x = op.add(words, op.slice(op.constant(positions), start, length, step, start))
    x = _norm(x, w, "embeddings.LayerNorm", epsilon)

    hidden = op.unsqueeze(op.unsqueeze(mask, one), one)  # [B, 1, 1, T]
    away = op.multiply(op.subtract(hidden, op.constant(np.float32(1))), op.constant(np.float32(1e4)))
    for n in range(int(config["num_hidden_layers"])):
        layer = f"encoder.layer.{n}"
        attended = _attention(x, away, w, f"{layer}.attention", heads)
        x = _norm(op.add(x, attended), w, f"{layer}.attention.output.LayerNorm", epsilon)
        inner = op.gelu(_dense(x, w, f"{layer}.intermediate.dense"), "erf")
        x = _norm(op.add(x, _dense(inner, w, f"{layer}.output.dense")), w, f"{layer}.output.LayerNorm", epsilon)

    kept = op.multiply(x, op.unsqueeze(mask, last))
    count = op.reduce_sum(mask, op.constant(np.array([1], np.int64)), True)
    mean = op.divide(op.reduce_sum(kept, op.constant(np.array([1], np.int64))), count)
    tokens = op.normalize_l2(x, last, 1e-12, "max")
    return ov.Model([op.normalize_l2(mean, one, 1e-12, "max"), tokens], [ids, mask], "minilm")


def _compile(weights_dir: Path, cache: Path | None, device: str) -> ov.CompiledModel:
    """bf16 where the CPU has it. OpenVINO keys its cache by graph, weights, options and device.

    On a CPU every inference has one thread: two that wait for each other cost a quarter more time, and twice the
    waiting where other processes want the cores too.
    """
    core = ov.Core()
    options = {"PERFORMANCE_HINT": "LATENCY"}
    if device == "CPU":
        options = {"NUM_STREAMS": str(STREAMS), "INFERENCE_NUM_THREADS": str(STREAMS)}
        bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        options["INFERENCE_PRECISION_HINT"] = "bf16" if bf16 else "f32"
    if cache is not None:
        options["CACHE_DIR"] = str(cache)
    return core.compile_model(build(weights_dir), device, options)


class Encoder:
    """Texts to unit vectors, in this process. One thread at a time.

    `weights_dir` holds config.json, model.safetensors, tokenizer.json and sentence_bert_config.json;
    `cache` (optional) is a folder that keeps the compiled graph: 0.25 s instead of 0.5 s at the next start.
    """

    def __init__(self, weights_dir: Path, cache: Path | None = None, device: str = "CPU") -> None:
        if not (weights_dir / "model.safetensors").is_file():
            raise StartRefused(f"No embedder weights in {weights_dir}: run `make setup` to install them.")
        limit = json.loads((weights_dir / "sentence_bert_config.json").read_text())["max_seq_length"]
        self._tokenizer = Tokenizer.from_file(str(weights_dir / "tokenizer.json"))
        self._tokenizer.enable_truncation(limit)
        self._tokenizer.no_padding()
        compiled = _compile(weights_dir, cache, device)
        self._requests = [compiled.create_infer_request() for _ in range(STREAMS)]
        self._read: OrderedDict[bytes, NDArray[np.float16]] = OrderedDict()  # no text, only its hash

    def encode(self, texts: Sequence[str]) -> Vectors:
        """L2-normalised float32 [n, 384], in the order of `texts`; longer than 256 tokens is cut off."""
        tokens = self.tokens(texts)
        vectors = np.empty((len(tokens), DIMENSIONS), np.float32)
        groups = batches([len(t) for t in tokens])
        while together := list(islice(groups, STREAMS)):
            for rows, found in zip(
                together, self.vectors([[tokens[r] for r in rows] for rows in together]), strict=True
            ):
                vectors[rows] = found
        return vectors

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids with [CLS] and [SEP], at most 256 a text."""
        return [e.ids for e in self._tokenizer.encode_batch([t[:CHARACTERS] for t in texts])]

    def vectors(self, groups: Sequence[Sequence[Sequence[int]]]) -> list[Vectors]:
        """At most STREAMS inferences side by side, each over the texts of a group, padded to its longest: [n, 384]."""
        running = self._requests[: len(groups)]
        for request, tokens in zip(running, groups, strict=True):
            width = max(map(len, tokens))
            ids = np.zeros((len(tokens), width), np.int64)
            mask = np.zeros((len(tokens), width), np.float32)
            for row, t in enumerate(tokens):
                ids[row, : len(t)] = t
                mask[row, : len(t)] = 1
            request.start_async((ids, mask))
        for request in running:
            request.wait()
        return [np.array(request.get_output_tensor(0).data, np.float32) for request in running]

    def matches(self, question: str, texts: Sequence[Excerpts]) -> Vectors:
        """How near each excerpt is to a question, and to each content word of it: [excerpts, 1 + words], cosines.

        First column: the mean of the excerpt's token vectors, made in the context of its whole text, with the
        question's (late chunking, Günther et al. 2024, arXiv:2409.04701). The others: late interaction (Khattab &
        Zaharia 2020, arXiv:2004.12832), the greatest likeness of a token of the question to any of
        the excerpt or of its text's head, averaged over a word's tokens. An excerpt beyond the 256 tokens that are read
        is like nothing: 0.
        """
        asked = self._tokenizer.encode(question[:CHARACTERS])
        known = self._token_vectors([question, *(t.text for t in texts)])
        tokens, *read = [vectors.astype(np.float32) for vectors in known]
        words = _content(asked, question)
        whole = tokens.mean(axis=0)
        whole /= np.linalg.norm(whole)
        found = []
        for text, vectors in zip(texts, read, strict=True):
            offsets = np.array(self._tokenizer.encode(text.text[:CHARACTERS]).offsets)
            likeness = tokens @ vectors.T
            head = _best(likeness, _inside(offsets, 0, text.head))
            for start, end in text.spans:
                inside = _inside(offsets, start, end)
                best = np.maximum(_best(likeness, inside), head) if inside.any() else np.zeros(len(tokens))
                mean = vectors[inside].mean(axis=0) if inside.any() else np.zeros(DIMENSIONS)
                near = float(mean @ whole) / max(float(np.linalg.norm(mean)), 1e-9)
                found.append([near, *(float(best[places].mean()) for places in words)])
        return np.array(found, np.float32).reshape(-1, 1 + len(words))

    def _token_vectors(self, texts: Sequence[str]) -> list[NDArray[np.float16]]:
        """Unit vectors of each text's tokens; passages are asked about again, so those of the last texts are kept."""
        keys = [blake2b(text.encode(), digest_size=16).digest() for text in texts]
        for key in keys:
            if key in self._read:
                self._read.move_to_end(key)
        asked = dict(zip(keys, texts, strict=True))
        missing = iter([(key, text) for key, text in asked.items() if key not in self._read])
        while together := list(islice(missing, STREAMS)):
            # Not by calling the compiled model: it shares its inputs, and later writes where these arrays were.
            running = self._requests[: len(together)]
            for request, ids in zip(running, self.tokens([text for _, text in together]), strict=True):
                request.start_async((np.array([ids], np.int64), np.ones((1, len(ids)), np.float32)))
            for request, (key, _) in zip(running, together, strict=True):
                request.wait()
                self._read[key] = np.array(request.get_output_tensor(1).data[0], np.float16)
        found = [self._read[key] for key in keys]
        while len(self._read) > READ:
            self._read.popitem(last=False)
        return found


def _inside(offsets: NDArray[np.int64], start: int, end: int) -> NDArray[np.bool_]:
    """Which tokens lie within these characters; the special ones have none."""
    held: NDArray[np.bool_] = (offsets[:, 0] >= start) & (offsets[:, 1] <= end) & (offsets[:, 1] > offsets[:, 0])
    return held


def _best(likeness: NDArray[np.float32], of: NDArray[np.bool_]) -> NDArray[np.float32]:
    best: NDArray[np.float32] = likeness[:, of].max(axis=1, initial=-1.0)
    return best


def _content(encoding: Encoding, text: str) -> list[list[int]]:
    """The places of the tokens of each content word; of all tokens where there is none."""
    words: dict[int, list[int]] = {}
    for place, word in enumerate(encoding.word_ids):
        if word is not None:
            words.setdefault(word, []).append(place)
    spans = encoding.offsets
    found = [p for p in words.values() if content_words(text[spans[p[0]][0] : spans[p[-1]][1]])]
    return found or [list(range(len(encoding.ids)))]


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in groups of like length, so that little of an inference is padding.

    A group has at most BATCH_TEXTS texts and, unless it is a single text, BATCH_TOKENS padded tokens.
    """
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and (len(group) == BATCH_TEXTS or (len(group) + 1) * lengths[index] > BATCH_TOKENS):
            yield group
            group = []
        group.append(index)
    if group:
        yield group
