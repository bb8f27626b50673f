"""The log: JSON lines for machines, text for a terminal; an exception's words, which may quote content, stay out."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

from proveout.edge.logs import JsonLines, current_request


def formatted(record: logging.LogRecord) -> dict[str, object]:
    line = JsonLines().format(record)
    assert "\n" not in line
    told: dict[str, object] = json.loads(line)
    return told


def test_a_line_is_one_json_object() -> None:
    record = logging.LogRecord("proveout.x", logging.WARNING, "f.py", 3, "%d took\nlong", (3,), None)
    answering = current_request.set("req_1")
    told = formatted(record)
    current_request.reset(answering)
    assert told.pop("time")
    assert told == {"level": "warning", "logger": "proveout.x", "message": "3 took\nlong", "request": "req_1"}


def test_an_exception_tells_where_and_not_what() -> None:
    try:
        raise ValueError("what somebody asked")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f.py", 3, "it failed", (), sys.exc_info())
    told = formatted(record)
    assert "request" not in told
    assert told["error"] == "ValueError" and "test_logs.py" in str(told["places"])
    assert "somebody" not in json.dumps(told)


def test_json_where_nobody_looks_and_text_where_asked_for() -> None:
    program = "import logging, sys; from proveout.edge.logs import begin_log; begin_log({}); logging.info('hello')"

    def log(kind: str) -> str:
        return subprocess.run([sys.executable, "-c", program.format(kind)], stderr=subprocess.PIPE, text=True).stderr

    assert json.loads(log("None"))["message"] == json.loads(log("'json'"))["message"] == "hello"
    assert log("'text'").rstrip().endswith("INFO root hello")
