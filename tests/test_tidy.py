"""The house rules, each with its reason and its mend in the message."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proveout.store.queries import load

SOURCE = Path(__file__).parent.parent / "src" / "proveout"
FILES = sorted(SOURCE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}

GROUND = ("domain", "errors", "configfile", "settings", "language")
# A room may import what stands to its right; rooms of one tuple are siblings and import each other never.
ORDER: tuple[tuple[str, ...], ...] = (
    ("edge", "testing", "__main__"),
    ("releases",),
    ("evals",),
    ("serving",),
    ("access", "guard", "retrieval", "engine", "ledger"),
    ("jobs",),
    ("store",),
    GROUND,
)
BROAD = {
    "serving/pipeline.py": "every way out of an admitted request leaves one completion, bugs included",
    "ledger/journal.py": "a batch that fails for whatever reason must fail its writers, and the next go on",
}
# What an auditor copies and runs alone is one file with a command line of its own.
ALONE = ("ledger/verify.py",)


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def rank(name: str) -> int:
    return next(i for i, rooms in enumerate(ORDER) if name in rooms)


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(SOURCE.parent)}:{getattr(node, 'lineno', 0)}"


def imports(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Every module that a file imports, lazy imports counted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node, node.module
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def test_imports_point_one_way() -> None:
    wrong = set()
    for path, tree in TREES.items():
        here = room(path)
        for node, name in imports(tree):
            parts = name.split(".")
            if parts[0] != "proveout" or len(parts) < 2 or here in ("__init__", "__main__"):
                continue
            there = parts[1]
            if there != here and there not in GROUND and rank(there) <= rank(here):
                wrong.add(f"{where(path, node)}: {here} imports {there}")
    assert not wrong, (
        "imports point from the door to the ground, and siblings never meet, so that any room can be read alone; "
        "pass what you need in through edge/wiring.py:\n" + "\n".join(sorted(wrong))
    )


def test_no_import_circles() -> None:
    names = {path: "proveout." + ".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in FILES}
    names = {path: name.removesuffix(".__init__") for path, name in names.items()}
    known = set(names.values())
    graph = {
        names[path]: {name for _, name in imports(tree) if name in known and name != names[path]}
        for path, tree in TREES.items()
    }
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, (
            "an import circle cannot be read in any order; move what both need to a third place: "
            + (" -> ".join((*way, name)))
        )
        if name in done:
            return
        for below in sorted(graph[name]):
            walk(below, (*way, name))
        done.add(name)

    for name in sorted(graph):
        walk(name, ())


@pytest.mark.parametrize(
    ("pattern", "allowed", "reason"),
    [
        (
            r"^(?:starlette|fastapi|uvicorn|http\.server)\b",
            ("edge",),
            "only edge knows server-side HTTP: raise a ProveoutError",
        ),
        (
            r"^(?:argparse|typer|click|sys\.argv)\b",
            ("edge", "testing"),  # the scripted upstream is a process of its own too
            "only edge knows the command line: take an argument",
        ),
        (r"^dbos\b", ("jobs",), "only jobs knows the job engine: use jobs.runtime"),
    ],
)
def test_libraries_stay_in_their_room(pattern: str, allowed: tuple[str, ...], reason: str) -> None:
    wrong = [
        where(path, node)
        for path, tree in TREES.items()
        if room(path) not in allowed and (name_of(path) not in ALONE or "argparse" not in pattern)
        for node, name in imports(tree)
        if re.match(pattern, name)
    ]
    assert not wrong, f"{reason}:\n" + "\n".join(wrong)


def test_statuses_are_given_in_one_place() -> None:
    wrong = [
        where(path, node)
        for path, tree in TREES.items()
        if room(path) != "edge"
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "status_code"
    ]
    assert not wrong, "our status codes live in edge/http/problems.py: raise an error of the tree:\n" + "\n".join(wrong)


def test_only_store_holds_sql() -> None:
    words = re.compile(r"^\s*(?:select|insert into|update|delete from|create table|alter table)\s", re.IGNORECASE)
    allowed = {"jobs/runtime.py": "advisory lock of a worker's slot"}
    wrong = [
        where(path, node)
        for path, tree in TREES.items()
        if room(path) != "store" and str(path.relative_to(SOURCE)) not in allowed
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and words.match(node.value)
    ]
    assert not wrong, "SQL is reviewed text in store/queries/*.sql: name a query there:\n" + "\n".join(wrong)


def test_only_settings_reads_the_environment() -> None:
    wrong = [
        where(path, node)
        for path, tree in TREES.items()
        if path.name != "settings.py"
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"))
    ]
    assert not wrong, "the environment is read once, in settings.py: add a Variable there:\n" + "\n".join(wrong)


def test_unrestricted_scopes_are_rare() -> None:
    allowed = {"jobs/runtime.py", "edge/wiring.py"}
    wrong = [
        where(path, node)
        for path, tree in TREES.items()
        if str(path.relative_to(SOURCE)) not in allowed | {"domain.py"}
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr == "system" and ast.unparse(node.value) == "Scope")
        or (isinstance(node, ast.keyword) and node.arg == "unrestricted")
    ]
    assert not wrong, "a scope that sees everything is made only in jobs and wiring: pass a Scope in:\n" + "\n".join(
        wrong
    )


def test_no_globals_and_few_broad_excepts() -> None:
    broad: dict[str, list[str]] = {}
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            assert not isinstance(node, ast.Global), f"{where(path, node)}: no `global`: make it a field of an object"
            if isinstance(node, ast.ExceptHandler):
                kinds = ast.unparse(node.type) if node.type else "everything"
                if re.search(r"\b(Exception|BaseException|everything)\b", kinds):
                    broad.setdefault(str(path.relative_to(SOURCE)), []).append(where(path, node))
    unexpected = {file: places for file, places in broad.items() if file not in BROAD}
    assert not unexpected, f"name the errors you expect; a broad except hides bugs: {unexpected}"
    assert set(BROAD) == set(broad), f"take these out of BROAD, they catch broadly no more: {set(BROAD) - set(broad)}"
    assert len(BROAD) <= 6


def test_sizes() -> None:
    wrong = []
    for path, tree in TREES.items():
        lines = len(path.read_text().splitlines())
        most = 800 if name_of(path) in ALONE else 600
        if lines > most:
            wrong.append(f"{path.relative_to(SOURCE)}: {lines} lines, at most {most}: split it by what it tells")
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            length = (node.end_lineno or 0) - node.lineno + 1
            limit = 60 if room(path) == "serving" else 80
            if length > limit:
                wrong.append(f"{where(path, node)}: {node.name} has {length} lines, at most {limit}: split it")
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            # a command's parameters are its options: each has an Annotated type that says what it is for
            options = "cli" in path.parts and all("Annotated" in ast.unparse(a.annotation or a) for a in arguments)
            count = 0 if options else len([a for a in arguments if a.arg not in ("self", "cls")])
            if count > 8:
                wrong.append(f"{where(path, node)}: {node.name} takes {count} parameters, at most 8: group them")
            if node.returns is None:
                wrong.append(f"{where(path, node)}: {node.name} does not say what it returns")
    assert not wrong, "\n".join(wrong)


def test_every_query_is_used_and_known() -> None:
    queries = load()
    text = "\n".join(path.read_text() for path in FILES)
    used = set(re.findall(r"\.(?:fetch|row|run|run_many|run_alone)\(\s*\"([a-z_]+\.[a-z_.]+)\"", text))
    assert used == set(queries), f"unknown: {sorted(used - set(queries))}, unused: {sorted(set(queries) - used)}"


def test_importing_does_nothing() -> None:
    """No connection, thread or environment read while importing: else order of imports would matter."""
    modules = [
        "proveout." + ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for path in FILES
        if path.name not in ("__init__.py", "__main__.py")
    ]
    program = f"""
import sys, threading
import aiohttp, dbos, fastapi, openvino_genai, psycopg_pool, typer, uvicorn, tokenizers  # libraries may do as they do
def look(event, arguments):
    if event in ("socket.connect", "socket.bind", "subprocess.Popen", "os.fork"):
        sys.exit(f"importing does {{event}} {{arguments}}")
sys.addaudithook(look)
before = threading.active_count()
for name in {modules!r}:
    __import__(name)
sys.exit(f"threads: {{threading.enumerate()}}" if threading.active_count() > before else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
