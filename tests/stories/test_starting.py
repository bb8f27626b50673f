"""Starting where starting is hard: a taken port, a taken folder, long paths, root and not, wrong settings."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from hashlib import blake2b
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


@pytest.fixture(scope="module")
def ordinary() -> Iterator[Server]:
    """The other tests run as whoever runs the suite; this server as user 1000 of a namespace, who is not root.

    Its data folder is where everybody may look, under a path too long for sockets, with spaces.
    """
    within = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*within, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("this machine forbids user namespaces, so no other user can be had")
    with tempfile.TemporaryDirectory() as open_to_all:
        folder = Path(open_to_all) / ("a long name " * 8) / "data"
        folder.parent.mkdir()
        for place in (Path(open_to_all), folder.parent):
            place.chmod(0o755)
        server = start_server(folder, within=within)
        yield server
        assert server.stop() == 0


def runtime(server: Server) -> Path:
    """The folder of the server's sockets."""
    return Path((server.data / "postgres" / "postmaster.pid").read_text().splitlines()[4])


def test_as_an_ordinary_user_in_a_long_path(ordinary: Server) -> None:
    assert (ordinary.data / "postgres" / "PG_VERSION").exists()
    assert len(str(runtime(ordinary))) < 90 and runtime(ordinary).stat().st_mode & 0o777 == 0o700


# Tries all that another user of the machine could; prints what it got.
ATTACK = """
import socket, sys
from pathlib import Path
data, run, *pids = sys.argv[1:]
tries = {f"list {folder}": lambda folder=folder: list(Path(folder).iterdir()) for folder in (data, run)}
for name in ("owner.key", "master.key", "postgres.password", "up.lock", "postgres/PG_VERSION", "logs/postgres.log"):
    tries[f"read {name}"] = lambda name=name: (Path(data) / name).read_bytes()
for name in ("new", "postgres/new"):
    tries[f"write {name}"] = lambda name=name: (Path(data) / name).write_text("x")
tries["write into the runtime folder"] = lambda: (Path(run) / "new").write_text("x")
for name in (".s.PGSQL.5432", "engine.sock", "generator.sock", "embedder.sock"):
    tries[f"connect to {name}"] = lambda name=name: socket.socket(socket.AF_UNIX).connect(f"{run}/{name}")
for pid in pids:
    tries[f"environment of {pid}"] = lambda pid=pid: Path(f"/proc/{pid}/environ").read_bytes()
    tries[f"memory of {pid}"] = lambda pid=pid: open(f"/proc/{pid}/mem", "rb")
for what, attempt in tries.items():
    try:
        attempt()
        print("got:", what)
    except PermissionError:
        print("refused:", what)
"""
NOBODY = 65534


def another_user(*arguments: str) -> str:
    """What the attack prints, run as a user who is neither root nor the one who runs this."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user of the machine")
    for python in (sys.executable, "/usr/bin/python3"):  # the first may be in a home that others cannot enter
        command = [python, "-I", "-c", ATTACK, *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, user=NOBODY, group=NOBODY, extra_groups=[]
            )
        except PermissionError:
            continue
        assert done.returncode == 0, done.stderr
        return done.stdout
    pytest.skip("there is no Python that another user of this machine may run")


def test_another_user_of_the_machine_gets_nothing(ordinary: Server) -> None:
    pids = [str(ordinary.process.pid), *(str(ordinary.pid_of(name)) for name in ("gateway", "postgres", "worker"))]
    said = another_user(str(ordinary.data), str(runtime(ordinary)), *pids).splitlines()
    assert len(said) > 20 and [line for line in said if not line.startswith("refused:")] == []
    secrets = [(ordinary.data / name).read_text().strip() for name in ("owner.key", "master.key", "postgres.password")]
    for pid in pids:  # what everybody may read of a process
        assert not any(secret in Path(f"/proc/{pid}/cmdline").read_text() for secret in secrets)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize("squat", ["a folder of another", "a folder open to all", "a link", "a file"])
def test_a_runtime_folder_that_somebody_else_made_is_refused(tmp_path: Path, short_folder: Path, squat: str) -> None:
    """Where the data folder's path is too long for sockets, they are in the temporary folder, which is everybody's."""
    data, elsewhere = tmp_path / ("long" * 25), tmp_path / "elsewhere"
    mark = blake2b(os.fsencode(data), digest_size=8).hexdigest()
    run = short_folder / f"proveout-{os.geteuid()}-{mark}"
    elsewhere.mkdir(mode=0o700)
    if squat == "a link":
        run.symlink_to(elsewhere)
    elif squat == "a file":
        run.touch()
    else:
        run.mkdir(mode=0o700)
        if squat == "a folder open to all":
            run.chmod(0o777)
        elif os.geteuid() == 0:
            os.chown(run, NOBODY, NOBODY)
        else:
            pytest.skip("only root can make a folder of another user")
    done = up("--data", str(data), "--port", "0", TMPDIR=str(short_folder))
    one_sentence(done, rf"{run} is not this user's private folder: remove it, or choose a shorter --data")
    assert not list(elsewhere.iterdir())
