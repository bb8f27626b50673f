"""From a fresh clone to a server that answers, and how long later starts take: `make soak`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from conftest import HELPDESK, ROOT, start_server
from pages import Page

PAGE, TITLE = "starting.md", "Starting"
SECOND_STARTS = 5
CLONE_SECONDS, SECOND_SECONDS = 180.0, 10.0


def test_a_fresh_clone(tmp_path: Path, page: Page) -> None:
    """`git clone`, `make up`; packages are downloaded, since no cache is used."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout, so there is nothing to clone")
    began = time.monotonic()
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tmp_path / "clone")], check=True)
    environment = {**os.environ, "PIP_NO_CACHE_DIR": "1"}
    # a terminal would be needed for Ctrl-C to reach only `up`: here it gets its signal by itself
    subprocess.run(["make", "setup"], cwd=tmp_path / "clone", env=environment, check=True, capture_output=True)
    installed = time.monotonic() - began
    command = [".venv/bin/proveout", "up", "examples/helpdesk", "--port", "0"]
    process = subprocess.Popen(command, cwd=tmp_path / "clone", stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    ready = next((line for line in process.stdout if re.match("Proveout is up: ", line)), None)
    seconds = time.monotonic() - began
    process.terminate()
    process.communicate(timeout=60)
    page.add(
        "| from a fresh clone | s |\n|---|---|\n"
        f"| to everything installed, all packages downloaded | {installed:.0f} |\n"
        f"| to `up examples/helpdesk` ready | {seconds:.0f} |"
    )
    assert ready and seconds <= CLONE_SECONDS


def test_later_starts(tmp_path: Path, page: Page) -> None:
    """The example on a data folder of its own: made, started again, and started after kill -9."""
    rows, seconds = [], []
    for number in range(1 + 2 * SECOND_STARTS):
        server = start_server(tmp_path / "data", str(HELPDESK))
        if number == 0:
            rows.append(f"| the first, which makes the database and reads the knowledge | {server.seconds:.1f} |")
        else:
            seconds.append(server.seconds)
        if number < SECOND_STARTS:
            assert server.stop() == 0
        else:
            server.kill_everything()
    for how, some in (("stopped", seconds[:SECOND_STARTS]), ("killed", seconds[SECOND_STARTS:])):
        rows.append(f"| another, after one that was {how} ({len(some)} times) | {min(some):.1f}–{max(some):.1f} |")
    page.add("| start of `up examples/helpdesk` | s |\n|---|---|\n" + "\n".join(rows))
    assert max(seconds) <= SECOND_SECONDS
