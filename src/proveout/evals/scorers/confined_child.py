"""The process in which an app's own scorers run: `python -I -S -X utf8 confined_child.py`, JSON lines in and out.

It gives up what it does not need before it runs a line of theirs: memory, processor time, files, children, the rights
of root; then an audit hook (PEP 578) lets through no event but those of plain computing and of importing the standard
library. The hook cannot hold somebody who exploits CPython itself: bundles come from developers, not from strangers.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

MEMORY = 512 * 2**20
SECONDS = 600  # of processor time, for all calls together
_NOBODY = 65534
_EVENTS = """
builtins.id compile cpython.PyInterpreterState_Clear cpython._PySys_ClearAuditHooks exec import marshal.loads
object.__delattr__ object.__getattr__ object.__setattr__ sys._getframe sys._getframemodulename sys.excepthook
sys.unraisablehook
"""
_PLAIN = frozenset(_EVENTS.split())
_READS = frozenset(["open", "os.listdir", "os.scandir"])


def confine() -> None:
    """Gives up all rights that scoring does not need, for good."""
    library = Path(os.__file__).parent
    inside = (f"{library}{os.sep}", f"{Path(os.__file__).resolve().parent}{os.sep}")
    zipped = tuple(path for path in sys.path if path.endswith(".zip"))
    for limit, most in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 16),
    ):
        resource.setrlimit(limit, (most, most))
    if os.getuid() == 0 and all(p.stat().st_mode & 0o001 for p in library.parents):
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _PLAIN and not (event == "import" and str(arguments[0]).lstrip("_") == "ctypes"):
            return
        if event in _READS and arguments and isinstance(arguments[0], str):
            path = os.path.normpath(arguments[0]) + os.sep
            reads = event != "open" or not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if reads and path.startswith((*inside, *zipped)):
                return
        raise PermissionError(f"a scorer has no right to {event}: it computes, from its arguments alone")

    sys.addaudithook(hook)


def serve(lines: TextIO, out: TextIO) -> None:
    """The first line has the code and its file's name; each further line asks for one score. An error of theirs ends
    the process, after it was told."""
    first = json.loads(lines.readline())
    file = first["file"]

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        frames = [frame for frame in traceback.extract_tb(trace) if frame.filename == file]
        line = frames[-1].lineno if frames else getattr(error, "lineno", None)
        out.write(json.dumps({"error": f"{file}:{line or 1}: {kind.__name__}: {error}"[:2000]}) + "\n")
        out.flush()

    sys.excepthook = tell
    names: dict[str, Any] = {"__name__": "scorers"}
    exec(compile(first["code"], file, "exec", dont_inherit=True), names)  # noqa: S102 (what this process is for)
    for line in lines:
        asked = json.loads(line)
        score = names[asked["name"]](asked["case"], asked["delivered"])
        out.write(json.dumps({"score": score}) + "\n")
        out.flush()


if __name__ == "__main__":
    mine = sys.stdout
    sys.stdout = sys.stderr = io.StringIO()  # what they print goes nowhere
    confine()
    serve(sys.stdin, mine)
