"""Jobs of workers in tests; they must be importable by name."""

import os
import signal
import time

from mmfusion_jax.errors import DataError


def act(word: str) -> str:
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "hang":
        time.sleep(600)
    if word == "data":
        raise DataError("D32", "cut short", "again")
    if word == "bug":
        raise ZeroDivisionError("division by zero")
    if word == "pid":
        return str(os.getpid())
    return word.upper()
