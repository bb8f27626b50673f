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
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

MEMORY = 512 * 2**20
SECONDS = 600  # of processor time, for all calls together
_NOBODY = 65534
_EVENTS = """
builtins.id compile cpython._PySys_ClearAuditHooks cpython.PyInterpreterState_Clear exec marshal.loads
object.__delattr__ object.__getattr__ object.__setattr__ sys._getframe sys._getframemodulename sys.excepthook
sys.unraisablehook
"""
# Of the modules that are not Python: those that compute. All power over files and processes comes through the others.
_COMPILED = """
_abc _ast _bisect _blake2 _codecs _collections _contextvars _csv _datetime _decimal _functools _hashlib _heapq _json
_locale _md5 _opcode _operator _pickle _queue _random _sha1 _sha2 _sha256 _sha3 _sha512 _sre _stat _statistics _string
_struct _thread _tokenize _typing _warnings _weakref _zoneinfo array atexit binascii cmath errno itertools math time
unicodedata zlib
"""


def confine() -> None:
    """Gives up all rights that scoring does not need, for good."""
    library = Path(os.__file__).parent
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
    zipped = [path for path in sys.path if path.endswith(".zip")]
    sys.addaudithook(_guard((f"{library}/", f"{library.resolve()}/", *zipped)))


def _guard(readable: tuple[str, ...]) -> Callable[[str, tuple[Any, ...]], None]:
    """The audit hook. It looks up nothing that their code could replace: all that it uses is bound here, once."""
    plain, reads = frozenset(_EVENTS.split()), frozenset(["open", "os.listdir", "os.scandir"])
    compiled, builtin = frozenset(_COMPILED.split()), frozenset(sys.builtin_module_names)
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    kind, text, folders, refused = type, str, (library[:-1] for library in readable), PermissionError
    listed = frozenset(folders)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in plain:
            return
        if event == "import":  # with a file name: a compiled module is loaded
            name, file = arguments[0], arguments[1]
            if kind(name) is text and (name in compiled or not (file or name in builtin)):
                return
        elif event in reads and kind(arguments[0]) is text:
            path = arguments[0]
            inside = path in listed or (path.startswith(readable) and "/.." not in path)
            if inside and (event != "open" or not (arguments[2] or 0) & writes):
                return
        raise refused(f"a scorer has no right to {event}: it computes, from its arguments alone")

    return hook


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
