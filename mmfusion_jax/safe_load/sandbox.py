"""Work on files of strangers, in a process with limits.

Importing a file may take memory or time without end, or crash a decoder. The work is
done by a fresh process that cannot take more than it is given, and what comes back from
it is JSON, or files that it wrote: nothing that could act in this process.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from mmfusion_jax import errors
from mmfusion_jax.errors import DataError

JSON: TypeAlias = Any
REQUEST, RESPONSE = "order.json", "answer.json"
_LONGEST = 64 << 20  # bytes of an answer
_KINDS = {
    kind.__name__: kind
    for kind in (
        errors.ConfigError,
        errors.MissingDependencyError,
        errors.DataError,
        errors.DivergedError,
        errors.CheckpointError,
    )
}


def memory_for(path: Path) -> float:
    """Memory in GB that an import of `path` may use: 4 times its size, at least 2."""
    return max(2.0, 4 * path.stat().st_size / 1e9)


def run_sandboxed(
    module_function: str,
    arguments: Mapping[str, JSON],
    *,
    memory_gb: float,
    cpu_seconds: int,
    timeout: float,
    subject: str = "the import",
) -> JSON:
    """Calls a function in a process of its own.

    Args:
        module_function: such as "mmfusion_jax.data.media.decode_clips:prepare".
        arguments: what to call it with, by name; JSON values.
        memory_gb: address space it may add to what Python and its libraries take; no
            file it writes may be larger either.
        cpu_seconds: time of the processor.
        timeout: time on the clock, in seconds.
        subject: what is done, as messages call it.

    Returns:
        What the function returned, which must be a JSON value.

    Raises:
        UserError: the one that the function raised.
        DataError: it needed more than it was given, or its process ended.
        RuntimeError: it failed in another way: a bug, with its traceback.
    """
    order = {
        "function": module_function,
        "arguments": dict(arguments),
        "parent": os.getpid(),
        "memory": int(memory_gb * 1e9),
        "cpu": int(cpu_seconds),
    }
    with tempfile.TemporaryDirectory(prefix="mmfusion_jax_") as folder:
        (Path(folder) / REQUEST).write_text(json.dumps(order))
        command = [
            sys.executable,
            "-m",
            "mmfusion_jax.safe_load.sandbox_worker",
            folder,
        ]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise DataError(
                "D66",
                f"{subject} took longer than {timeout:g} s.",
                "raise --timeout if you trust the file",
            ) from None
        if done.returncode:
            raise _ended(done.returncode, subject, memory_gb, cpu_seconds)
        answer = _read(Path(folder) / RESPONSE, subject)
    return _result(answer, subject, memory_gb)


def _ended(status: int, subject: str, memory_gb: float, cpu_seconds: int) -> DataError:
    """Why a process that gave no answer came to its end."""
    if status == -signal.SIGXCPU:
        return DataError(
            "D66",
            f"{subject} took more than {cpu_seconds} s of the processor.",
            "raise --cpu_seconds if you trust the file",
        )
    if status == -signal.SIGXFSZ:
        return DataError(
            "D68",
            f"{subject} wrote a file of more than {memory_gb:g} GB.",
            "raise --memory_gb if you trust the file",
        )
    how = f"ended with exit code {status}"
    if status < 0:
        how = f"was ended by the signal {_signal_name(-status)}"
    cause = "; perhaps the machine has no memory left" * (status == -signal.SIGKILL)
    return DataError(
        "D67", f"{subject} {how}{cause}.", "copy or download the file again"
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _read(path: Path, subject: str) -> Mapping[str, JSON]:
    """The answer, which comes from a process that may not be its own master."""
    try:
        if path.stat().st_size > _LONGEST:
            raise ValueError("too long")
        answer = json.loads(path.read_text())
        if not isinstance(answer, dict) or len(answer) != 1:
            raise ValueError("of another form")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            "D67",
            f"{subject} ended without a valid answer ({error}).",
            "copy or download the file again",
        ) from error
    return answer


def _result(answer: Mapping[str, JSON], subject: str, memory_gb: float) -> JSON:
    """What the function returned, or raises what it raised."""
    if "result" in answer:
        return answer["result"]
    if "mistake" in answer:
        kind, code, message, fix = answer["mistake"]
        raise _KINDS.get(kind, DataError)(code, message, fix)
    if "memory" in answer:
        raise DataError(
            "D65",
            f"{subject} is too large for the import limit of {memory_gb:g} GB.",
            "raise --memory_gb if you trust the file",
        )
    raise RuntimeError(f"{subject} failed:\n{answer.get('bug')}")
