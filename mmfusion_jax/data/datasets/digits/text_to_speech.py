"""Words spoken by eSpeak NG, which runs in a process of its own."""

import dataclasses
import json
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mmfusion_jax.errors import MissingDependencyError, missing_dependency

WORKER = Path(__file__).with_name("espeak_worker.py")
CHUNK = 64  # utterances per process: a start costs as much as about 20 of them
PROCESSES = 2


@dataclasses.dataclass(frozen=True)
class Utterance:
    """What is said, and how.

    Attributes:
        text: English words.
        voice: eSpeak NG's accent and speaker, such as "en-us+f2".
        rate: words a minute.
        pitch: 0..99.
    """

    text: str
    voice: str
    rate: int
    pitch: int


def speak(
    utterances: Sequence[Utterance], timeout: float = 120
) -> Iterator[tuple[int, np.ndarray]]:
    """Speaks in order; equal utterances give equal sound.

    Args:
        utterances: what to say.
        timeout: seconds that `CHUNK` utterances may take; half a second is usual.

    Yields:
        The sample rate in Hz and the sound, (t) int16.

    Raises:
        MissingDependencyError: eSpeak NG is not installed, fails or does not answer in time.
    """
    starts = range(0, len(utterances), CHUNK)
    chunks = [utterances[start : start + CHUNK] for start in starts]
    with ThreadPoolExecutor(PROCESSES) as pool:
        answers = [pool.submit(_speak_chunk, chunk, timeout) for chunk in chunks]
        try:
            for answer in answers:
                yield from answer.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _speak_chunk(
    utterances: Sequence[Utterance], timeout: float
) -> list[tuple[int, np.ndarray]]:
    """One run of the worker."""
    requests = json.dumps([dataclasses.astuple(one) for one in utterances])
    try:
        run = subprocess.run(
            # -P: the modules beside the worker must not hide those of Python.
            [sys.executable, "-P", str(WORKER)],
            input=requests.encode(),
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _failed(f"did not answer within {timeout:g} s") from None
    except OSError as error:
        raise _failed(f"could not be started: {error}") from error
    if run.returncode == 3:
        raise missing_dependency(
            "espeakng_loader", "demo", "building the digits data set"
        )
    if run.returncode:
        lines = run.stderr.decode(errors="replace").strip().splitlines()
        reason = "; ".join(lines[-2:]) or f"exit status {run.returncode}"
        raise _failed(f"failed: {reason}")
    return list(_unpacked(run.stdout, len(utterances)))


def _unpacked(answer: bytes, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """The sounds in an answer of the worker."""
    try:
        (rate,), place = struct.unpack_from("<I", answer), 4
        for _ in range(count):
            (size,) = struct.unpack_from("<I", answer, place)
            place += 4
            yield rate, np.frombuffer(answer, "<i2", size // 2, place)
            place += size
    except (struct.error, ValueError) as error:
        raise _failed(f"sent a broken answer of {len(answer)} bytes") from error


def _failed(what: str) -> MissingDependencyError:
    """The error for an eSpeak NG that is there and does not work."""
    return MissingDependencyError(
        "E02",
        f"eSpeak NG, which speaks the digits data set, {what}.",
        'reinstall it: pip install --force-reinstall "espeakng-loader>=0.2.4"',
    )
