"""Handles Ctrl-C and SIGTERM: finishes the step, saves and exits."""

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType

MESSAGE = (
    b"\nstopping after this step; a second Ctrl-C stops immediately without saving\n"
)


class GracefulShutdown:
    """Records the first signal; the second one stops immediately.

    Use it as a context manager around a run; it restores the previous handlers on
    exit. In a thread other than the main one it does nothing: only the main thread gets
    signals.

    Args:
        exits: True to end the process at the second signal; False to raise
            KeyboardInterrupt, in a process that does other work too, such as a
            notebook.

    Attributes:
        signal: Number of the signal received; None before that.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, *, exits: bool = True):
        self.signal: int | None = None
        self._exits = exits
        self._before: dict[int, object] = {}

    @property
    def exit_code(self) -> int:
        """128 plus the signal number: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.signal or 0)

    def __enter__(self) -> "GracefulShutdown":
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._handle) for s in self.SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # The first signal only sets a flag: saving here could interrupt a save, or find
        # a half-updated state. A command calls `_exit` on the second one, since
        # anything else could wait for the threads of JAX and Orbax.
        if self.signal is not None:
            if not self._exits:
                raise KeyboardInterrupt
            os._exit(128 + number)
        self.signal = number
        with contextlib.suppress(OSError):
            os.write(2, MESSAGE)  # print may not be called in a handler
