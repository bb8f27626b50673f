"""Ties a process's life to its supervisor's."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent() -> None:
    """Ends this process when the supervisor that started it dies, even by kill -9 (Linux only).

    Elsewhere an orphan is found by the port, socket or lock that it holds when `up` starts again.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1 and os.getpid() != 1:  # it died before the call; in a container 1 may start us
        sys.exit(0)
