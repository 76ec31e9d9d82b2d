"""Ctrl-C and SIGTERM: finish the step, save, say how to go on."""

import contextlib
import os
import signal
from types import FrameType, TracebackType

NOTED = b"\nstopping after this step; a second Ctrl-C ends at once, without saving\n"


class GracefulShutdown:
    """Remembers the first signal; the second one ends the process at once.

    Use as a context manager around a run; the handlers before it come back after.

    Attributes:
        signal: the signal that came, None while there is none.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.signal: int | None = None
        self._before: dict[int, object] = {}

    @property
    def exit_code(self) -> int:
        """128 and the number of the signal: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.signal or 0)

    def __enter__(self) -> "GracefulShutdown":
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
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number
        with contextlib.suppress(OSError):
            os.write(2, NOTED)  # print may not be called in a handler
