"""Runs a function on an untrusted file in a sandboxed process.

A file can make its reader use memory or time without bound, or crash a decoder. So the
function runs in a new process with resource limits, and returns JSON or writes files:
nothing that could run code in this process.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from mmfusion_jax import errors
from mmfusion_jax.errors import DataError, printable, shorten

JSON: TypeAlias = Any
T = TypeVar("T")
# JSON in files, not pickles in pipes: a worker that a file has taken over must not be
# able to run code here.
REQUEST, RESPONSE = "request.json", "response.json"
_MAX_RESPONSE = 64 << 20  # bytes
_MAX_MESSAGE = 4000  # characters
_ERRORS = {
    error.__name__: error
    for error in (
        errors.ConfigError,
        errors.MissingDependencyError,
        errors.DataError,
        errors.DivergedError,
        errors.CheckpointError,
    )
}


@dataclass(frozen=True)
class ErrorResponse:
    """UserError of the function.

    Attributes:
        name: Name of its class in `errors.py`.
        code: Code of the error.
        message: The message.
        fix: Remedy; "" if there is nothing to add.
    """

    name: str
    code: Annotated[str, msgspec.Meta(pattern="^[A-Z][0-9]{2}$")]
    message: str
    fix: str


@dataclass(frozen=True)
class Response:
    """Response of the sandboxed process; only one of the attributes is set.

    Attributes:
        result: Result of the function, JSON values.
        user_error: A UserError of the function.
        out_of_memory: True if the memory limit was exceeded.
        bug: Traceback of another exception.
    """

    result: JSON = None
    user_error: ErrorResponse | None = None
    out_of_memory: bool = False
    bug: str = ""


def memory_for(path: Path) -> float:
    """Returns the memory limit in GB for a file: 4 times its size, at least 2."""
    return max(2.0, 4 * path.stat().st_size / 1e9)


def run_sandboxed(
    module_function: str,
    arguments: Mapping[str, JSON],
    result_type: type[T],
    *,
    memory_gb: float,
    cpu_seconds: int,
    timeout: float,
    subject: str = "the import",
) -> T:
    """Calls a function in a separate process with resource limits.

    Args:
        module_function: Such as "mmfusion_jax.data.media.decode_clips:prepare".
        arguments: Keyword arguments of the function; JSON values.
        result_type: Type of the result, such as a dataclass of JSON values. It is
            checked: a file may have taken over the process.
        memory_gb: Limit of the address space, in addition to that of Python and its
            libraries, and of the size of every file that the function writes.
        cpu_seconds: Limit of the CPU time.
        timeout: Limit of the wall-clock time, in seconds.
        subject: Name of the task in messages.

    Returns:
        The result of the function.

    Raises:
        UserError: The function raised it.
        DataError: A limit was exceeded, the process crashed, or the result is not of
            the type `result_type`.
        RuntimeError: The function raised another exception, which is a bug; the
            message has its traceback.
    """
    request = {
        "function": module_function,
        "arguments": dict(arguments),
        "parent": os.getpid(),
        "memory": int(memory_gb * 1e9),
        "cpu": int(cpu_seconds),
    }
    with tempfile.TemporaryDirectory(prefix="mmfusion_jax_") as folder:
        (Path(folder) / REQUEST).write_text(json.dumps(request))
        # A new interpreter instead of a fork: it has neither the memory of this process
        # nor its open files, except for its output, and JAX's threads do not survive a
        # fork.
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
                f"{subject} exceeded the time limit of {timeout:g} s.",
                "raise --timeout if you trust the file",
            ) from None
        if done.returncode:
            raise _exit_error(done.returncode, subject, memory_gb, cpu_seconds)
        response = _read_response(Path(folder) / RESPONSE, subject)
    _raise_error(response, subject, memory_gb)
    try:
        return msgspec.convert(response.result, result_type)
    except ValueError as error:  # msgspec's ValidationError is one
        raise _invalid_response(subject, error) from error


def _exit_error(
    status: int, subject: str, memory_gb: float, cpu_seconds: int
) -> DataError:
    """Returns the error for a process that ended without a response."""
    if status == -signal.SIGXCPU:
        return DataError(
            "D66",
            f"{subject} exceeded the CPU time limit of {cpu_seconds:d} s.",
            "raise --max_cpu_seconds if you trust the file",
        )
    if status == -signal.SIGXFSZ:
        return DataError(
            "D68",
            f"{subject} exceeded the file size limit of {memory_gb:g} GB.",
            "raise --max_memory_gb if you trust the file",
        )
    how = f"exited with code {status:d}"
    if status < 0:
        how = f"was killed by signal {_signal_name(-status)}"
    suffix = "; possibly out of memory" * (status == -signal.SIGKILL)
    return DataError(
        "D67", f"{subject} {how}{suffix}.", "copy or download the file again"
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _read_response(path: Path, subject: str) -> Response:
    """Returns the response, which is checked: a file may have taken over the worker."""
    try:
        if path.stat().st_size > _MAX_RESPONSE:
            raise ValueError("too large")
        return msgspec.convert(json.loads(path.read_text()), Response)
    except (OSError, ValueError, RecursionError) as error:
        raise _invalid_response(subject, error) from error


def _invalid_response(subject: str, error: Exception) -> DataError:
    return DataError(
        "D67",
        f"{subject} returned no valid response ({shorten(error)}).",
        "copy or download the file again",
    )


def _cut(message: str) -> str:
    """Returns a message of at most `_MAX_MESSAGE` characters."""
    if len(message) <= _MAX_MESSAGE:
        return message
    return f"{message[:_MAX_MESSAGE]} ..."


def _raise_error(response: Response, subject: str, memory_gb: float) -> None:
    """Raises the exception of the function, if there was one."""
    if found := response.user_error:
        # A name of a class in the response selects from a table and is never looked up.
        kind = _ERRORS.get(found.name, DataError)
        raise kind(found.code, _cut(found.message), _cut(found.fix))
    if response.out_of_memory:
        raise DataError(
            "D65",
            f"{subject} exceeded the memory limit of {memory_gb:g} GB.",
            "raise --max_memory_gb if you trust the file",
        )
    if response.bug:
        raise RuntimeError(f"{subject} failed:\n{printable(response.bug)}")
