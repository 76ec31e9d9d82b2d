"""Text to speech by eSpeak NG, in separate processes."""

import dataclasses
import json
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mmfusion_jax.errors import MissingDependencyError, missing_dependency, shorten

WORKER = Path(__file__).with_name("espeak_worker.py")
CHUNK = 64  # utterances per process; starting one takes as long as about 20 of them
PROCESSES = 2


@dataclasses.dataclass(frozen=True)
class Utterance:
    """A text and its voice.

    Attributes:
        text: English words.
        voice: Accent and speaker of eSpeak NG, such as "en-us+f2".
        rate: Words per minute.
        pitch: Pitch, 0..99.
    """

    text: str
    voice: str
    rate: int
    pitch: int


def speak(
    utterances: Sequence[Utterance], timeout: float = 120
) -> Iterator[tuple[int, np.ndarray]]:
    """Synthesizes utterances in order; equal utterances give equal audio.

    Args:
        utterances: Utterances to synthesize.
        timeout: Time limit of `CHUNK` utterances in seconds; they usually take 0.5 s.

    Yields:
        The sample rate in Hz and the audio, (t) int16.

    Raises:
        MissingDependencyError: eSpeak NG is not installed, fails or exceeds the time
            limit.
    """
    # Chunks are synthesized while the caller uses those before. Threads suffice, as
    # each waits for a process.
    starts = range(0, len(utterances), CHUNK)
    chunks = [utterances[start : start + CHUNK] for start in starts]
    with ThreadPoolExecutor(PROCESSES) as pool:
        results = [pool.submit(_speak_chunk, chunk, timeout) for chunk in chunks]
        try:
            for result in results:
                yield from result.result()
        finally:
            # After an error, or if the caller stops early, the chunks that are not
            # started are dropped; `with` alone would wait for all of them.
            pool.shutdown(cancel_futures=True)


def _speak_chunk(
    utterances: Sequence[Utterance], timeout: float
) -> list[tuple[int, np.ndarray]]:
    """Synthesizes utterances with one run of the worker."""
    requests = json.dumps([dataclasses.astuple(one) for one in utterances])
    try:
        run = subprocess.run(
            # -P: the modules next to the worker must not shadow those of Python.
            [sys.executable, "-P", str(WORKER)],
            input=requests.encode(),
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _failed(f"exceeded {timeout:g} s") from None
    except OSError as error:
        raise _failed(f"could not be started: {shorten(error)}") from error
    if run.returncode == 3:
        raise missing_dependency(
            "espeakng_loader", "demo", "building the digits dataset"
        )
    if run.returncode:
        lines = run.stderr.decode(errors="replace").strip().splitlines()
        reason = "; ".join(lines[-2:]) or f"exit status {run.returncode:d}"
        raise _failed(f"failed: {shorten(reason)}")
    return list(_unpacked(run.stdout, len(utterances)))


def _unpacked(response: bytes, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields sample rate and audio of the utterances in a response of the worker."""
    try:
        (rate,), offset = struct.unpack_from("<I", response), 4
        for _ in range(count):
            (size,) = struct.unpack_from("<I", response, offset)
            offset += 4
            yield rate, np.frombuffer(response, "<i2", size // 2, offset)
            offset += size
    except (struct.error, ValueError) as error:
        raise _failed(f"sent an invalid response of {len(response)} bytes") from error


def _failed(what: str) -> MissingDependencyError:
    """Returns the error for an eSpeak NG that is installed but does not work."""
    return MissingDependencyError(
        "E02",
        f"eSpeak NG, which generates the audio of the digits dataset, {what}.",
        'reinstall it: pip install --force-reinstall "espeakng-loader>=0.2.4"',
    )
