import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proveout.domain import Excerpts
from proveout.engine import minilm, weights
from proveout.engine.minilm import BATCH_TEXTS, BATCH_TOKENS, Encoder, batches
from proveout.errors import StartRefused


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(weights.embedder().folder, tmp_path_factory.mktemp("cache"))


def test_the_numbers_are_those_of_sentence_transformers(encoder: Encoder) -> None:
    reference = json.loads(Path(__file__).with_name("minilm_reference.json").read_text())
    expected = np.array(reference["vectors"], np.float32)
    found = encoder.encode(reference["texts"])
    assert found.dtype == np.float32 and found.shape == expected.shape == (8, 384)
    assert (found * expected).sum(1).min() > 0.999
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-3


def test_a_text_has_the_same_vector_alone_and_among_others(encoder: Encoder) -> None:
    texts = [f"{'word ' * (n % 40)} number {n}" for n in range(50)]
    together = encoder.encode(texts)
    alone = np.concatenate([encoder.encode([t]) for t in texts[:5]])
    assert (together[:5] * alone).sum(1).min() > 0.999


def test_no_texts_are_no_vectors(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, 384)


def test_a_long_text_is_cut_at_256_tokens(encoder: Encoder) -> None:
    assert [len(t) for t in encoder.tokens(["word " * 1000, "word"])] == [256, 3]


def test_missing_weights_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(StartRefused, match="make setup"):
        Encoder(tmp_path)


def test_safetensors_are_read_by_their_header(tmp_path: Path) -> None:
    values = np.arange(6, dtype="<f4")
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "ids": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]},
            "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [8, 32]},
        }
    ).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8 + values.tobytes())
    tensors = minilm.read_safetensors(path)
    assert list(tensors) == ["w"]
    assert tensors["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


def whole(text: str) -> Excerpts:
    return Excerpts(text, 0, ((0, len(text)),))


def test_matches_are_of_content_words_and_know_synonyms(encoder: Encoder) -> None:
    texts = [whole("Holiday is 25 days a year."), whole("Annual leave is long."), whole("")]
    found = encoder.matches("How long is annual leave?", texts)
    assert found.shape == (3, 4)  # the question, long, annual, leave
    assert found[1, 1:].min() > found[0, 1:].mean() > 0.4 and not found[2].any()
    assert found[0, 3] > encoder.matches("leave?", [whole("The tide was low.")])[0, 1]
    assert found[1, 0] > found[0, 0] > 0.3
    assert encoder.matches("Why?", [whole("Because.")]).shape == (1, 2)  # all of it, where no word has content


def test_an_excerpt_is_read_in_its_text_and_with_its_head(encoder: Encoder) -> None:
    text = "Holiday: Leeds gets 25 days. Rotterdam gets 27. The canteen opens at noon."
    spans = tuple(
        (text.index(s), text.index(s) + len(s)) for s in ("Leeds gets 25 days.", "The canteen opens at noon.")
    )
    headed = encoder.matches("How many holidays in Leeds?", [Excerpts(text, len("Holiday: "), spans)])
    alone = encoder.matches("How many holidays in Leeds?", [Excerpts(text, 0, spans)])
    assert headed[0, 0] == alone[0, 0] > headed[1, 0]  # the head is no part of the excerpt itself
    assert headed[0, 2:].min() > 0.6 and headed[1, 2] > alone[1, 2]  # holidays
    assert headed[1, 3] < headed[0, 3] - 0.2  # Leeds
    assert np.array_equal(headed, encoder.matches("How many holidays in Leeds?", [Excerpts(text, 9, spans)]))


def test_an_excerpt_beyond_what_is_read_is_like_nothing(encoder: Encoder) -> None:
    text = "word " * 400 + "Leeds"
    found = encoder.matches("Leeds?", [Excerpts(text, 0, ((0, 4), (len(text) - 5, len(text))))])
    assert found[0, 0] > 0 and not found[1].any()


@given(st.lists(st.integers(2, 256)))
def test_batches_hold_every_text_once_and_stay_small(lengths: list[int]) -> None:
    groups = list(batches(lengths))
    assert sorted(n for g in groups for n in g) == list(range(len(lengths)))
    for group in groups:
        assert len(group) <= BATCH_TEXTS
        assert len(group) == 1 or len(group) * max(lengths[n] for n in group) <= BATCH_TOKENS


def test_inference_leaves_the_memory_of_others_alone(encoder: Encoder) -> None:
    """A tensor that shares an array which is gone would be written into whatever has its place now."""
    draw = np.random.default_rng(0)
    words = ["leave", "annual", "holiday", "request", "team", "expense", "hotel", "travel", "the", "a", "of", "in"]
    for _ in range(120):
        texts = [" ".join(draw.choice(words, draw.integers(3, 40))) for _ in range(draw.integers(1, 22))]
        others = [np.arange(length) for length in (20, 20, 20, 1, 2, 3, 5, 8, 13, 27, 60, 100, 200)]
        encoder.encode(texts)
        encoder.matches(texts[0], [whole(text) for text in texts[:3]])
        assert all((other == np.arange(len(other))).all() for other in others)
