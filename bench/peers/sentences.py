"""sentence-transformers on the same weights: embeds the texts of a JSON file; prints the time, keeps the vectors."""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--vectors", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(2)
    model = SentenceTransformer(str(options.weights), device="cpu")
    texts = json.loads(options.texts.read_text())
    model.encode(texts[:32])
    began = time.perf_counter()
    vectors = model.encode(texts, batch_size=32, normalize_embeddings=True)
    seconds = time.perf_counter() - began
    np.save(options.vectors, vectors)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
