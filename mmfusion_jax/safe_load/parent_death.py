"""Ends a worker process when its parent process ends."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def exit_with_parent(parent: int) -> None:
    """Makes this worker process end with its parent, and ignore Ctrl-C.

    Args:
        parent: Process id of the parent.
    """
    # A terminal sends Ctrl-C to every process of the command. The parent handles it and
    # ends its workers; if they ended by themselves, it would report a crash.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        # Also if the parent is killed and cannot end its workers: without this, two of
        # 843 MB each were still running 80 s later. Linux sends the signal when the
        # thread that started this process ends.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call above
            os._exit(1)
