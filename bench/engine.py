"""The embedded engine beside its peers: the same weights, the same prompts, the same two cores, one after the other.

Generation: 16 answers of 64 tokens at once, each over a passage of about 430 tokens. Embedding: passages of about 170
tokens, and one short question at a time while the 16 answers are written. A peer that is not installed is named in the
table, not left out silently.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from numpy.typing import NDArray

from bench.gateway import free_port, wait_for
from bench.plots import bars
from proveout.engine import weights

STREAMS, TOKENS, ROUNDS = 16, 64, 3
MODEL, EXACT, EMBEDDER = "local/smollm2-135m-instruct", "local/exact", "local/all-minilm-l6-v2"
ROOT = Path(__file__).parent.parent
Messages = list[dict[str, str]]


def prompts() -> list[Messages]:
    """16 questions, each over a passage of its own of about 330 words."""
    words = " ".join(p.read_text() for p in sorted((ROOT / "examples/helpdesk/knowledge").rglob("*.md"))).split()
    passages = [" ".join(words[i * 330 : (i + 1) * 330]) for i in range(STREAMS)]
    ask = "Explain in several sentences what the text says.\n\n"
    return [[{"role": "user", "content": ask + passage}] for passage in passages]


@contextmanager
def running(command: Sequence[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **environment}, start_new_session=True
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def proveout(folder: Path, echo: object = None) -> Iterator[tuple[str, dict[str, str]]]:
    """`proveout up` without an app, the generator in both modes, fakes of these scripts; its address and the owner's
    headers."""
    port, data, config = free_port(), folder / "data", folder / "proveout.yaml"
    exact = f"{{path: {_gguf()}, mode: deterministic}}"
    models = f"models: {{{MODEL.removeprefix('local/')}: {{}}, {EXACT.removeprefix('local/')}: {exact}}}\n"
    config.write_text(f"{models}echo: {json.dumps(echo or {})}\n")
    command = [sys.executable, "-m", "proveout", "up", "--data", str(data), "--port", str(port)]
    with running([*command, "--config", str(config)]):
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: urllib.request.urlopen(url + "/readyz", timeout=5), 180)
        yield url, {"Authorization": f"Bearer {(data / 'owner.key').read_text().strip()}"}


# -- generation ------------------------------------------------------------------------------------------------------


async def chat(session: aiohttp.ClientSession, url: str, model: str, messages: Messages, **more: Any) -> dict[str, Any]:
    body = {"model": model, "messages": messages, "max_tokens": TOKENS, "temperature": 0, **more}
    async with session.post(url + "/v1/chat/completions", json=body) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == 200, answer
        return answer


async def chat_rate(url: str, headers: dict[str, str], model: str) -> float:
    """Tokens a second of 16 answers at once, the better of two runs on fresh prompts after one to warm up."""
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=600)) as session:
        rates = []
        for turn in range(3):
            # another first word each turn: nobody answers from a prefix that it has seen
            asked = [[{**m, "content": f"({turn}) {m['content']}"} for m in messages] for messages in prompts()]
            began = time.perf_counter()
            answers = await asyncio.gather(*(chat(session, url, model, messages) for messages in asked))
            seconds = time.perf_counter() - began
            rates.append(sum(int(a["usage"]["completion_tokens"]) for a in answers) / seconds)
        return max(rates[1:])


def genai_rate(folder: str) -> float:
    """openvino-genai called directly, in this process, with the settings of our generator."""
    import openvino_genai as genai

    from proveout.engine import generator

    scheduler = genai.SchedulerConfig()
    scheduler.max_num_batched_tokens = generator.BATCH_TOKENS
    scheduler.max_num_seqs = STREAMS
    scheduler.enable_prefix_caching = True
    path = generator.prepare(weights.generator().files[0], Path(folder))
    pipe = genai.ContinuousBatchingPipeline(str(path), scheduler, "CPU")
    tokenizer = pipe.get_tokenizer()
    config = genai.GenerationConfig()
    config.max_new_tokens, config.do_sample, config.apply_chat_template = TOKENS, False, False
    rates = []
    for turn in range(3):
        handles = []
        began = time.perf_counter()
        for number, messages in enumerate(prompts()):
            asked = [{**m, "content": f"({turn}) {m['content']}"} for m in messages]
            text = tokenizer.apply_chat_template(asked, add_generation_prompt=True)
            handles.append(pipe.add_request(turn * STREAMS + number, text, config))
        while pipe.has_non_finished_requests():
            pipe.step()
        tokens = sum(len(output.generated_ids) for handle in handles for output in handle.read_all())
        rates.append(tokens / (time.perf_counter() - began))
    return max(rates[1:])


def in_child(function: str, *arguments: str) -> float:
    """A measurement in a process of its own, so that nothing of it stays."""
    code = f"import bench.engine as e; print('RESULT', e.{function}(*{arguments!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return float(done.stdout.rsplit("RESULT", 1)[1])


def peer(python: Path, module: str, port: int) -> list[str]:
    return [str(python), str(ROOT / f"bench/peers/{module}.py"), "--weights", str(_gguf()), "--port", str(port)]


def _gguf() -> Path:
    return weights.generator().files[0]


def llamacpp_rate(python: Path) -> float:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running(peer(python, "llamacpp", port)):
        wait_for(lambda: urllib.request.urlopen(url + "/health", timeout=5), 60)
        return asyncio.run(chat_rate(url, {}, "any"))


def loop_rate(python: Path) -> float:
    """The plain service takes one request after the other: four of the prompts tell its rate."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running(peer(python, "loop", port), HF_HUB_OFFLINE="1"):
        wait_for(lambda: urllib.request.urlopen(url + "/docs", timeout=5), 180)

        async def drive() -> float:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:

                async def ask(messages: Messages) -> int:
                    body = {"prompt": messages[0]["content"], "max_length": TOKENS}
                    async with session.post(url + "/generate", json=body) as response:
                        return int((await response.json())["tokens"])

                await ask(prompts()[0])
                began = time.perf_counter()
                tokens = await asyncio.gather(*(ask(messages) for messages in prompts()[1:5]))
                return sum(min(t, TOKENS) for t in tokens) / (time.perf_counter() - began)

        return asyncio.run(drive())


# -- embedding -------------------------------------------------------------------------------------------------------


def texts() -> list[str]:
    """512 passages of about 170 tokens (130 words)."""
    words = " ".join(p.read_text() for p in sorted((ROOT / "examples/helpdesk/knowledge").rglob("*.md"))).split()
    return [" ".join(words[(i * 37) % (len(words) - 130) :][:130]) for i in range(512)]


async def embed_ours(url: str, headers: dict[str, str]) -> tuple[float, NDArray[np.float32]]:
    """Passages a second through /v1/embeddings, four requests of 32 at a time; the vectors [texts, dimensions]."""
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=600)) as session:
        limit = asyncio.Semaphore(4)

        async def embed(batch: list[str]) -> list[list[float]]:
            body = {"model": EMBEDDER, "input": batch}
            async with limit, session.post(url + "/v1/embeddings", json=body) as response:
                answer = await response.json()
                assert response.status == 200, answer
                return [item["embedding"] for item in answer["data"]]

        every = texts()
        await embed(every[:32])
        began = time.perf_counter()
        parts = await asyncio.gather(*(embed(every[i : i + 32]) for i in range(0, len(every), 32)))
        rate = len(every) / (time.perf_counter() - began)
        return rate, np.array([v for part in parts for v in part], np.float32)


def embed_peer(python: Path, folder: Path) -> tuple[float, NDArray[np.float32]]:
    """Passages a second of sentence-transformers, and its vectors."""
    asked, made = folder / "texts.json", folder / "vectors.npy"
    asked.write_text(json.dumps(texts()))
    script = str(ROOT / "bench/peers/sentences.py")
    command = [str(python), script, "--weights", str(weights.embedder().folder)]
    done = subprocess.run(
        [*command, "--texts", str(asked), "--vectors", str(made)],
        capture_output=True, text=True, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    return len(texts()) / json.loads(done.stdout.splitlines()[-1])["seconds"], np.load(made)


async def question_times(url: str, headers: dict[str, str]) -> tuple[list[float], list[float]]:
    """Milliseconds of one short question's embedding: alone, and while 16 answers are written."""
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=600)) as session:

        async def once(number: int) -> float:
            began = time.perf_counter()
            body = {"model": EMBEDDER, "input": f"How many days of annual leave do I get in year {number}?"}
            async with session.post(url + "/v1/embeddings", json=body) as response:
                await response.read()
                assert response.status == 200
            return (time.perf_counter() - began) * 1000

        await once(0)
        alone = [await once(number) for number in range(100)]
        answers = [asyncio.create_task(chat(session, url, MODEL, messages, max_tokens=256)) for messages in prompts()]
        await asyncio.sleep(0.5)
        beside: list[float] = []
        while not any(answer.done() for answer in answers):
            beside.append(await once(len(beside)))
            await asyncio.sleep(0.02)
        await asyncio.gather(*answers)
        return alone, beside


# -- determinism -----------------------------------------------------------------------------------------------------


async def equal_alone_and_together(url: str, headers: dict[str, str], model: str) -> int:
    """How many answers of 16 a round have the same bytes alone and beside 15 others; each round arrives otherwise."""
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=600)) as session:

        async def answer(turn: int, number: int, messages: Messages, wait: float) -> str:
            await asyncio.sleep(wait)
            asked = [{**m, "content": f"({turn}) {m['content']}"} for m in messages]
            # In the first round all end at once, later one after the other.
            said = await chat(session, url, model, asked, max_tokens=TOKENS - turn * number)
            return str(said["choices"][0]["message"]["content"])

        same = 0
        for turn in range(ROUNDS):
            asks = list(enumerate(prompts()))
            together = await asyncio.gather(*(answer(turn, n, m, turn * 0.05 * n) for n, m in asks))
            same += sum([await answer(turn, n, m, 0) == together[n] for n, m in asks])
        return same


# -- the page --------------------------------------------------------------------------------------------------------

_HOW = """Written by `make bench` on two cores. Generation: the same GGUF file, 16 answers of 64 tokens at once, each
over a passage of about 430 tokens, the better of two runs after one to warm up. Embedding: the same MiniLM, 512
passages of about 170 tokens. Peers run in an environment of their own, one after the other."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--peers", type=Path, default=Path("build/peers-models"), help="what `make bench` installs into"
    )
    parser.add_argument("--output", type=Path, help="the Markdown page to write")
    options = parser.parse_args()
    python = options.peers / "bin" / "python"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with proveout(folder) as (url, headers):
            fast = asyncio.run(chat_rate(url, headers, MODEL))
            exact = asyncio.run(chat_rate(url, headers, EXACT))
            same = asyncio.run(equal_alone_and_together(url, headers, EXACT))
            same_fast = asyncio.run(equal_alone_and_together(url, headers, MODEL))
            embedded, vectors = asyncio.run(embed_ours(url, headers))
            alone, beside = asyncio.run(question_times(url, headers))
        direct = in_child("genai_rate", str(folder / "data" / "cache"))
        peers = python.exists()
        llamacpp = llamacpp_rate(python) if peers else None
        loop = loop_rate(python) if peers else None
        rate, theirs = embed_peer(python, folder) if peers else (None, None)
    cosine = float(np.min(np.sum(vectors * theirs, axis=1))) if theirs is not None else None
    page = "\n".join(
        [
            "# The embedded engine beside its peers\n",
            f"{_HOW}\n",
            "| 16 answers at once | tokens/s | ours is |",
            "|---|---|---|",
            f"| Proveout, through its HTTP API | {fast:.0f} | |",
            _row("openvino-genai, called directly", direct, fast),
            _row("llama.cpp's server (xllamacpp)", llamacpp, fast),
            _row("FastAPI around a transformers pipeline, one at a time", loop, fast),
            f"\nDeterministic mode: {exact:.0f} tokens/s, {exact / fast:.2f} × the fast one; {same} of "
            f"{STREAMS * ROUNDS} answers have the same bytes alone and beside 15 others (fast mode: {same_fast}).\n",
            "| 512 passages | passages/s | ours is |",
            "|---|---|---|",
            f"| Proveout, `/v1/embeddings` | {embedded:.0f} | |",
            _row("sentence-transformers (torch)", rate, embedded),
            "" if cosine is None else f"\nThe lowest cosine between its vectors and ours: {cosine:.5f}.",
            f"\nOne short question embedded: {_quantiles(alone)}; while 16 answers are written: {_quantiles(beside)}.",
        ]
    )
    print(page)
    if options.output:
        written = [
            ("Proveout", fast),
            ("openvino-genai", direct),
            ("llama.cpp's server", llamacpp),
            ("transformers", loop),
        ]
        vectors_of = [("Proveout", embedded), ("sentence-transformers", rate)]
        plots = [
            bars(options.output, "generation", "tokens/s", written),
            bars(options.output, "embedding", "passages/s", vectors_of),
        ]
        options.output.write_text("\n\n".join([page, *plots]) + "\n")


def _row(name: str, rate: float | None, ours: float) -> str:
    return f"| {name} | not installed here | |" if rate is None else f"| {name} | {rate:.0f} | {ours / rate:.2f} × |"


def _quantiles(milliseconds: list[float]) -> str:
    cuts = statistics.quantiles(milliseconds, n=20)
    return f"p50 {statistics.median(milliseconds):.1f} ms, p95 {cuts[-1]:.1f} ms"


if __name__ == "__main__":
    main()
