"""Gateways beside each other: plain chat requests against one instant upstream.

The gateway under test is pinned to one core; the load (wrk), the upstream and Postgres share the other. A peer that is
not installed is named in the table, not left out silently.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.plots import bars

GATEWAY_CORE, OTHER_CORE = "0", "1"
BODY = {"messages": [{"role": "user", "content": "How many days of annual leave do we get in Leeds?"}]}


@dataclass(frozen=True)
class Target:
    """A gateway to load: where, with which headers and model, and the processes that must be pinned."""

    name: str
    url: str
    headers: dict[str, str]
    model: str
    pids: list[int]


@dataclass(frozen=True)
class Result:
    rate: float  # requests/s
    p50: float  # ms
    p99: float
    errors: int


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], core: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        ["taskset", "-c", core, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        **options,  # type: ignore[call-overload]
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(target: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            target()
            return
        except (OSError, urllib.error.URLError, ValueError, StopIteration):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def ask(target: Target) -> None:
    body = json.dumps({**BODY, "model": target.model}).encode()
    request = urllib.request.Request(target.url, body, {"Content-Type": "application/json", **target.headers})
    with urllib.request.urlopen(request, timeout=10) as response:
        assert "25 days" in json.load(response)["choices"][0]["message"]["content"]


def load(target: Target, connections: int, seconds: int) -> Result:
    """One wrk run; latency as wrk's own histogram gives it."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        headers = "".join(f'wrk.headers["{k}"] = "{v}"\n' for k, v in target.headers.items())
        body = json.dumps({**BODY, "model": target.model})
        script.write(
            f"wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\n{headers}wrk.body = [[{body}]]\n"
        )
        script.write(
            "function done(s, l, r) io.write(string.format('RESULT %f %f %f %d\\n', s.requests / s.duration * 1e6, "
            "l:percentile(50) / 1000, l:percentile(99) / 1000, s.errors.status + s.errors.connect + s.errors.read + "
            "s.errors.timeout)) end\n"
        )
        script.flush()
        command = [
            "taskset",
            "-c",
            OTHER_CORE,
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "-s",
            script.name,
            target.url,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"RESULT (\S+) (\S+) (\S+) (\d+)", done.stdout)
    assert found, done.stdout
    return Result(float(found[1]), float(found[2]), float(found[3]), int(found[4]))


@contextmanager
def proveout(upstream: int, folder: Path) -> Iterator[tuple[Target, str]]:
    """`proveout up` with the upstream as a provider; also gives the DSN of its database."""
    config = folder / "proveout.yaml"
    config.write_text(
        f"providers: {{up: {{base_url: 'http://127.0.0.1:{upstream}/v1', prices: {{input: 1, output: 2}}}}}}\n"
    )
    data, port = folder / "data", free_port()
    command = [
        sys.executable,
        "-m",
        "proveout",
        "up",
        "--data",
        str(data),
        "--port",
        str(port),
        "--config",
        str(config),
    ]
    with running(command, OTHER_CORE):
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: urllib.request.urlopen(url + "/readyz", timeout=5), 120)
        gateway = subprocess.run(["pgrep", "-f", "processes.gateway.*"], capture_output=True, text=True, check=True)
        pids = [int(pid) for pid in gateway.stdout.split() if str(data) in Path(f"/proc/{pid}/environ").read_text()]
        for pid in pids:
            subprocess.run(["taskset", "-apc", GATEWAY_CORE, str(pid)], check=True, capture_output=True)
        key = (data / "owner.key").read_text().strip()
        password = (data / "postgres.password").read_text().strip()
        dsn = f"postgresql://postgres:{password}@/postgres?host={data / 'run'}"
        yield (
            Target("Proveout", f"{url}/v1/chat/completions", {"Authorization": f"Bearer {key}"}, "up/bench", pids),
            dsn,
        )


@contextmanager
def litellm(program: Path, upstream: int, folder: Path) -> Iterator[Target]:
    config, port = folder / "litellm.yaml", free_port()
    config.write_text(
        "model_list: [{model_name: bench, litellm_params: {model: openai/bench, "
        f"api_base: 'http://127.0.0.1:{upstream}/v1', api_key: none}}}}]\n"
        "general_settings: {master_key: sk-0123456789abcdef0123456789abcdef}\n"
    )
    environment = {**os.environ, "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [str(program), "--config", str(config), "--port", str(port), "--num_workers", "1"]
    with running(command, GATEWAY_CORE, env=environment) as process:
        headers = {"Authorization": "Bearer sk-0123456789abcdef0123456789abcdef"}
        target = Target(
            "LiteLLM proxy", f"http://127.0.0.1:{port}/v1/chat/completions", headers, "bench", [process.pid]
        )
        wait_for(lambda: ask(target), 120)
        yield target


@contextmanager
def portkey(program: Path, upstream: int, folder: Path) -> Iterator[Target]:
    port = free_port()
    command = [
        "node",
        str(program),
        f"--port={port}",
        "--headless",
    ]
    environment = {**os.environ, "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}
    with running(command, GATEWAY_CORE, env=environment) as process:
        headers = {
            "Authorization": "Bearer none",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
        }
        target = Target(
            "Portkey gateway", f"http://127.0.0.1:{port}/v1/chat/completions", headers, "bench", [process.pid]
        )
        wait_for(lambda: ask(target), 60)
        yield target


def durable_insert(dsn: str) -> float:
    """The median of one durable one-row insert, ms."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create temp table t (x text)")
        connection.execute("create table if not exists public.bench_insert (x text)")
        times = []
        for _ in range(500):
            began = time.perf_counter()
            connection.execute("insert into public.bench_insert values (%s)", ("x" * 600,))
            times.append((time.perf_counter() - began) * 1000)
        connection.execute("drop table public.bench_insert")
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--peers", type=Path, default=Path("build/peers"), help="the folder that `make bench` installs into"
    )
    parser.add_argument("--output", type=Path, help="the Markdown page to write")
    parser.add_argument("--seconds", type=int, default=8)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is needed for the load: apt-get install wrk")
    rows: list[tuple[str, Result | None, Result | None]] = []
    upstream = free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(running([sys.executable, "-m", "bench.upstream", "--port", str(upstream)], OTHER_CORE))
        direct = Target("(the upstream itself)", f"http://127.0.0.1:{upstream}/v1/chat/completions", {}, "bench", [])
        wait_for(lambda: ask(direct), 10)
        base = load(direct, 1, 3)
        rows.append((direct.name, base, load(direct, 32, 3)))
        with proveout(upstream, folder) as (ours, dsn):
            wait_for(lambda: ask(ours), 10)
            load(ours, 8, 2)
            insert = durable_insert(dsn)
            rows.append((ours.name, load(ours, 1, options.seconds), load(ours, 32, options.seconds)))
        for name, program, start in (
            ("LiteLLM proxy", options.peers / "bin/litellm", litellm),
            ("Portkey gateway", options.peers / "node_modules/@portkey-ai/gateway/build/start-server.js", portkey),
        ):
            if not program.exists():
                rows.append((name, None, None))
                continue
            with start(program, upstream, folder) as target:
                load(target, 8, 2)
                rows.append((name, load(target, 1, options.seconds), load(target, 32, options.seconds)))
    found = table(rows, insert, base)
    print(found)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        drawn = [(name, many and many.rate) for name, _, many in rows[1:]]  # not the upstream itself
        plot = bars(options.output, "32-connections", "requests/s", drawn)
        options.output.write_text(f"# Gateways beside each other\n\n{_HOW}\n\n{found}\n\n{plot}\n")


_HOW = """Written by `make bench`. Plain chat requests, not streamed, against one instant upstream on the same machine.
The gateway under test has one core to itself; the load (wrk), the upstream and Postgres share the other. Proveout
checks the key, writes a durable intent before and a durable, sealed completion after each request; the peers write
nothing."""


def table(rows: list[tuple[str, Result | None, Result | None]], insert: float, base: Result) -> str:
    lines = [
        "| gateway, pinned to one core | 1 connection, requests/s | p50 ms | p99 ms "
        "| 32 connections, requests/s | p50 ms | p99 ms | errors |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one, many in rows:
        if one is None or many is None:
            lines.append(f"| {name} | not installed here | | | | | | |")
            continue
        lines.append(
            f"| {name} | {one.rate:,.0f} | {one.p50:.2f} | {one.p99:.2f} | {many.rate:,.0f} | {many.p50:.1f} "
            f"| {many.p99:.1f} | {one.errors + many.errors} |"
        )
    ours = rows[1][1]
    assert ours is not None
    lines.append(f"\nOne durable one-row insert on this machine: {insert:.2f} ms at the median.")
    lines.append(
        f"Added by Proveout at 1 connection: {ours.p50 - base.p50:.2f} ms at p50 "
        f"(bound: 1.0 + 2 × {insert:.2f} = {1 + 2 * insert:.2f} ms); "
        f"p99 {ours.p99:.2f} ms ({ours.p99 / ours.p50:.1f} × p50)."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
