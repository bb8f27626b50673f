"""Starting where starting is hard: a taken port, a taken folder, long paths, root and not, wrong settings."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Server, start_server


def up(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proveout", "up", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd, env={**os.environ, **environment}
    )


def one_sentence(done: subprocess.CompletedProcess[str], said: str) -> None:
    """Usage and input errors end with 2 and one plain sentence, never with a traceback."""
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line not in ("starting …", "stopping …")]
    assert len(lines) == 1 and re.search(said, lines[0]), done.stderr


def test_a_taken_port(server: Server, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = up("--data", str(tmp_path / "d"), "--port", str(port))
    one_sentence(done, rf"127.0.0.1:{port} cannot be listened on \(Address already in use\): choose another")


def test_a_data_folder_that_is_in_use(server: Server) -> None:
    one_sentence(up("--data", str(server.data), "--port", "0"), "Another `proveout up` already runs on .*: stop it")


def test_a_data_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    one_sentence(
        up("--data", str(tmp_path / "file" / "d"), "--port", "0"), "cannot be used .*: choose another with --data"
    )


def test_an_app_that_is_not_there(tmp_path: Path) -> None:
    one_sentence(up(str(tmp_path / "nowhere"), "--data", str(tmp_path / "d")), "is not a folder")
    one_sentence(up(str(tmp_path), "--data", str(tmp_path / "d")), "app.yaml: the file does not exist")
    assert not (tmp_path / "d").exists()


def test_a_database_that_does_not_answer(tmp_path: Path) -> None:
    dsn = "postgresql://nobody@127.0.0.1:1/none"
    one_sentence(up("--database", dsn, "--data", str(tmp_path / "d"), "--port", "0"), "The database cannot be reached")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("providers: {a: {base_url: 'http://x'}}", r"providers.a.base_url"),
        ("provider: {}", r"proveout.yaml: provider: "),
        ("providers: {a: {base_url: 'http://x/v1', api_key_env: NOT_SET}}", "the variable NOT_SET is not set"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_wrong_config(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "proveout.yaml").write_text(text)
    done = up("--data", str(tmp_path / "d"), "--port", "0", cwd=tmp_path)
    assert done.returncode == 2 and re.search(said, done.stderr) and "Traceback" not in done.stderr


def test_as_an_ordinary_user_in_a_long_path(tmp_path: Path) -> None:
    """The other tests run as whoever runs the suite; this one as user 1000 of a namespace, who is not root."""
    within = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    if subprocess.run([*within, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine forbids user namespaces, so no other user can be had")
    folder = tmp_path / ("a long name " * 8) / "data"
    folder.parent.mkdir()
    server = start_server(folder, within=within)
    try:
        assert (folder / "postgres" / "PG_VERSION").exists()
        socket_folder = (folder / "postgres" / "postmaster.pid").read_text().splitlines()[4]
        assert len(socket_folder) < 90 and Path(socket_folder).stat().st_mode & 0o777 == 0o700
    finally:
        assert server.stop() == 0
