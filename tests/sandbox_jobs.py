"""Functions that the sandbox runs in tests; they must be importable by name."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmfusion_jax.errors import DataError
from mmfusion_jax.safe_load.safe_pickle import read_pickle
from mmfusion_jax.safe_load.sandbox import RESPONSE


@dataclass(frozen=True)
class Answer:
    word: str
    pid: int


def answer(word: str) -> Answer:
    return Answer(word, os.getpid())


def respond(content: str) -> None:
    """Writes a response as a worker could that a file has taken over."""
    (Path(sys.argv[1]) / RESPONSE).write_text(content)
    os._exit(0)


def hang() -> None:
    time.sleep(600)


def spin() -> None:
    while True:
        pass


def fill() -> None:
    np.ones(3_000_000_000, np.uint8)


def write(folder: str) -> None:
    with (Path(folder) / "large").open("wb") as file:
        for _ in range(300):
            file.write(bytes(1_000_000))


def end(number: int) -> None:
    os.kill(os.getpid(), signal.Signals(number))


def leave() -> None:
    os._exit(0)


def complain(message: str = "no header") -> None:
    raise DataError("D41", message, "add one")


def fail() -> None:
    raise ZeroDivisionError("by zero")


def names(file: str) -> list:
    return sorted(read_pickle(Path(file)))
