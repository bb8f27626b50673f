"""/metrics: the sum over all gateways whichever answers, kept over a kill -9, and closed to those without the right."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from conftest import Server, start_server


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = start_server(tmp_path_factory.mktemp("metrics") / "data", "--workers", "2")
    yield running
    assert running.stop() == 0


def call(server: Server, path: str, body: object = None, key: str | None = None) -> tuple[int, str]:
    """Over a connection of its own, so that either gateway may answer."""
    request = urllib.request.Request(server.url + path, None if body is None else json.dumps(body).encode())
    request.add_header("authorization", f"Bearer {key or server.owner_key}")
    request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(server: Server) -> dict[tuple[str, tuple[str, ...]], float]:
    status, text = call(server, "/metrics")
    assert status == 200
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
    }


def ask(server: Server, times: int, text: str = "hello there") -> None:
    for _ in range(times):
        status, _ = call(
            server, "/v1/chat/completions", {"model": "echo", "messages": [{"role": "user", "content": text}]}
        )
        assert status == 200


ECHO = ("proveout_requests_total", ("default", "", "", "echo", "request", "answered"))


def gateway_pids(server: Server) -> dict[int, str]:
    """The gateway processes below the supervisor."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in children}
    return {pid: command for pid, command in commands.items() if "processes.gateway" in command}


def test_every_scrape_tells_the_sum_of_all_gateways(gateways: Server) -> None:
    before = samples(gateways).get(ECHO, 0)
    ask(gateways, 30)
    found = [samples(gateways) for _ in range(10)]
    assert [one[ECHO] for one in found] == [before + 30] * 10
    assert found[0]["proveout_output_tokens_total", ECHO[1]] > 0
    assert found[0]["proveout_responses_total", ("200",)] >= 30
    assert found[0]["proveout_requests_in_flight", ()] == 0
    engine = {labels: value for (name, labels), value in found[0].items() if name == "proveout_engine_running"}
    assert engine == {("smollm2-135m-instruct", "chat-1"): 0}
    held = [Path(f"/proc/{pid}/fd") for pid in gateway_pids(gateways)]
    files = {link.readlink().name for folder in held for link in folder.iterdir() if "tally" in str(link.readlink())}
    assert len(held) == 2 and len(files) == 2, "each gateway counts in a file of its own"


def test_what_was_counted_outlives_its_gateway(gateways: Server) -> None:
    ask(gateways, 10)
    before = samples(gateways)[ECHO]
    killed = gateway_pids(gateways)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while len(set(gateway_pids(gateways)) - set(killed)) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    while time.monotonic() < deadline:
        try:
            assert samples(gateways)[ECHO] == before
            return
        except (ConnectionError, urllib.error.URLError):
            time.sleep(0.1)
    pytest.fail("no gateway came back")


def test_metrics_are_closed_and_hold_no_content(gateways: Server) -> None:
    secret = "nobody must read this"
    ask(gateways, 1, secret)
    status, made = call(gateways, "/api/v1/keys", {"name": "reader", "role": "user"})
    assert status == 201
    assert call(gateways, "/metrics", key="pk_wrong")[0] == 401
    assert call(gateways, "/metrics", key=json.loads(made)["key"])[0] == 404
    assert secret not in call(gateways, "/metrics")[1]
    for log in (gateways.data / "logs").glob("*.log"):
        assert secret not in log.read_text(), log.name


def test_the_doctor_looks_into_the_running_database(gateways: Server) -> None:
    done = gateways.cli("doctor", "--json")
    checks = {check["name"]: check["state"] for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 0 and checks["fsync"] == checks["roles"] == checks["listen and notify"] == "ok", checks


def test_the_log_of_gateways_and_workers_is_json(gateways: Server) -> None:
    for log in (gateways.data / "logs").glob("gateway-*.log"):
        for line in log.read_text().splitlines():
            assert {"time", "level", "logger", "message"} <= set(json.loads(line)), line
