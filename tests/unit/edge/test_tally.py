"""Counts that several processes share: summed over all, kept over a kill -9, gauges only of the living."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from proveout.edge.tally import Tally

OTHER = """
import sys, time
from pathlib import Path
from proveout.edge.tally import Tally
tally = Tally(Path(sys.argv[1]))
tally.slots(("a",))[0] += 5
tally.slots(("b", "ü"))[63] += 0.5
tally.gauges[1] = 7
print("counted", flush=True)
time.sleep(60)
"""


def other_process(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", OTHER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "counted\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_the_sum_over_processes_survives_kill_nine(tmp_path: Path) -> None:
    mine = Tally(tmp_path / "counts")
    slots = mine.slots(("a",))
    assert slots is not None
    slots[0] += 1
    mine.gauges[1] = 1
    process = other_process(tmp_path / "counts")
    counted = mine.read()
    assert counted.numbers["a",][0] == 6 and counted.numbers["b", "ü"][63] == 0.5 and counted.gauges[1] == 8
    kill(process)
    counted = mine.read()
    assert counted.numbers["a",][0] == 6, "what was counted stays"
    assert counted.gauges[1] == 1, "what was under way has ended with its process"
    process = other_process(tmp_path / "counts")
    assert mine.read().numbers["a",][0] == 11
    assert len(list((tmp_path / "counts").iterdir())) == 2, "the dead process's file was taken over"
    kill(process)
    mine.close()


def test_gauges_start_at_nothing(tmp_path: Path) -> None:
    kill(other_process(tmp_path))
    tally = Tally(tmp_path)
    assert tally.gauges[1] == 0 and tally.read().numbers["a",][0] == 5
    tally.close()


def test_without_a_folder_it_counts_alone() -> None:
    tally = Tally(None)
    slots = tally.slots(("a",))
    assert slots is not None
    slots[2] += 1
    assert tally.read().numbers == {("a",): [0.0, 0.0, 1.0, *[0.0] * 61]}


def test_where_there_is_no_room_it_counts_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    tally = Tally(tmp_path / "file")
    assert tally.slots(("a",)) is not None and "of this process alone" in caplog.text


def test_labels_are_bounded() -> None:
    tally = Tally(None)
    assert tally.slots(("x" * 600,)) is None
    made = [tally.slots((str(n),)) for n in range(1100)]
    assert sum(slots is not None for slots in made) == 1024 - 128
    assert tally.slots(("status",), bounded=True) is not None
    assert tally.slots(("7",)) is made[7], "those that are known still count"
