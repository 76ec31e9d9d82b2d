"""Self-test of this machine: a killed training must end like one that was not killed.

As a program it is the training: `python -m mmfusion_jax.runner.self_test WORKDIR PID`.
"""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmfusion_jax.config.base import base_config
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.dataset import Dataset, dataset_loader
from mmfusion_jax.data.in_memory import InMemory
from mmfusion_jax.errors import (
    MissingDependencyError,
    join_names,
    shorten,
    shown_name,
)
from mmfusion_jax.results.experiment_result import RESULT_FILE
from mmfusion_jax.results.model_result import ModelResult, read_run
from mmfusion_jax.results.predictions_file import PREDICTIONS_FILE
from mmfusion_jax.runner import experiment
from mmfusion_jax.runner.runtime import log, use_compilation_cache
from mmfusion_jax.runner.workdir import CHECKPOINTS
from mmfusion_jax.safe_load.parent_death import exit_with_parent
from mmfusion_jax.training.checkpoint.integrity import differences, read_records

MODULE = "mmfusion_jax.runner.self_test"
SIZES = {"train": 24, "valid": 9, "test": 9}
CLASSES = ("low", "middle", "high")
EPOCHS = 12
BLOCKED = "self-test: a connection to the network was refused"
"""What a training prints when its code tries to open a connection."""


@dataclasses.dataclass(frozen=True)
class SelfTest:
    """Result of a self-test that has passed.

    Attributes:
        steps: Number of steps of the training.
        killed_after: Newest checkpoint of the training when it was killed.
        arrays: Number of arrays that are equal, bit for bit.
        seconds: Duration.
        network_attempts: Number of connections that Python code tried to open; all of
            them were refused.
    """

    steps: int
    killed_after: int
    arrays: int
    seconds: float
    network_attempts: int


def run_self_test(folder: Path, limit: float = 300.0) -> SelfTest:
    """Trains a tiny model, kills and resumes it, and compares it with an unbroken one.

    Everything is written to `folder`; the trainings run on the CPU, because another
    process may hold the accelerator.

    Args:
        folder: Empty folder.
        limit: Maximum time of a training in seconds.

    Raises:
        MissingDependencyError: E08, a training failed, or the results differ.
    """
    begun = time.perf_counter()
    whole, killed = folder / "whole", folder / "killed"
    with _training(killed) as first:
        killed_after = _kill(first, killed, limit)
    # At the same time, and after the first, which has compiled what both need.
    with _training(whole) as other, _training(killed) as again:
        _finish(other, whole, limit)
        _finish(again, killed, limit)
    arrays = _compare(whole, killed)
    logs = "".join(_log(path) for path in (whole, killed))
    run = _result(whole)
    return SelfTest(
        run.steps,
        killed_after,
        arrays,
        time.perf_counter() - begun,
        logs.count(BLOCKED),
    )


@dataset_loader()
def noise() -> Dataset:
    """Returns examples of noise whose mean depends on the class."""
    sources = {}
    for number, (split, size) in enumerate(SIZES.items()):
        labels = np.arange(size) % len(CLASSES)
        rng = np.random.default_rng(number)
        x = rng.normal(labels[:, None, None] - 1, 1, (size, 6, 4)).astype(np.float32)
        mask = np.arange(6) < rng.integers(3, 7, (size, 1))
        targets = {"level": labels.astype(np.int32)}
        sources[split] = InMemory({"audio": x}, {"audio": mask}, targets)
    return Dataset("noise", "noise (embedded)", sources, classes={"level": CLASSES})


def config() -> Any:
    """Returns the `ConfigDict` of the training: dropout, BatchNorm and Adam."""
    made: Any = base_config()
    name = f"{MODULE}:noise"
    made.data.update(name=name, label="level", batch_size=8, num_read_threads=1)
    encoder = dict(name="feature_tokens", hidden_dim=8)
    made.model = dict(name="unimodal", encoders=dict(audio=encoder))
    made.losses = dict(task=dict(name="cross_entropy", weight=1.0))
    made.train.update(epochs=EPOCHS, log_every=1, diagnosis=False)
    return made


def refuse_network() -> None:
    """Makes every connection of Python code to the network an error.

    It does not concern libraries that open connections without Python.
    """

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event not in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
            return
        # The address of a Unix socket is a path, that of another one a tuple.
        if event != "socket.getaddrinfo" and not isinstance(args[1], tuple):
            return
        log(BLOCKED)
        raise OSError(BLOCKED)

    sys.addaudithook(hook)


def main(workdir: str, parent: str) -> None:
    """Trains, or resumes, without the network.

    Args:
        workdir: The work folder.
        parent: Process id of the test: the training ends with it.
    """
    exit_with_parent(int(parent))
    refuse_network()
    use_compilation_cache()
    # The others then compile nothing.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    experiment.train(resolve(config()), Path(workdir), f"python -m {MODULE} {workdir}")


@contextlib.contextmanager
def _training(workdir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a training; it is killed at the end of the context if it still runs."""
    with Path(f"{workdir}.log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE, str(workdir), str(os.getpid())],
            env=_environment(os.environ, workdir.parent),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _environment(given: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Returns the environment of a training, which writes to `folder` only."""
    package = str(Path(__file__).parents[2])
    paths = [package, *filter(None, [given.get("PYTHONPATH")])]
    caches = ("MMFUSION_CACHE", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TMPDIR")
    for name in caches:
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    return {
        **given,
        **{name: str(folder / name) for name in caches},
        "PYTHONPATH": os.pathsep.join(paths),
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # most of the time is compilation
        "PYTHONWARNINGS": "ignore",
    }


def _kill(process: subprocess.Popen[bytes], workdir: Path, limit: float) -> int:
    """Kills a training once it has a checkpoint; returns the newest one.

    Raises:
        MissingDependencyError: It ended before, or has no checkpoint in time.
    """
    end = time.monotonic() + limit
    while not _steps(workdir):
        if process.poll() is not None or time.monotonic() > end:
            raise _failed("has no checkpoint that it could resume from", workdir)
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if (workdir / RESULT_FILE).exists():
        raise _failed("ended before it could be killed", workdir)
    return max(_steps(workdir))


def _finish(process: subprocess.Popen[bytes], workdir: Path, limit: float) -> None:
    """Waits for a training; raises MissingDependencyError if it fails."""
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        raise _failed(f"took more than {limit:.0f} s", workdir) from None
    if code:
        raise _failed(f"ended with exit code {code:d}", workdir)


def _steps(workdir: Path) -> list[int]:
    """Returns the checkpoints of a training."""
    names = [path.name for path in workdir.glob(f"{CHECKPOINTS}/[0-9]*")]
    return [int(name) for name in names if name.isdecimal()]


def _compare(whole: Path, killed: Path) -> int:
    """Returns the number of equal arrays in the checkpoints of two trainings.

    Raises:
        MissingDependencyError: They are not equal, or metrics or predictions are not.
    """
    one, other = (_arrays(path) for path in (whole, killed))
    different = differences(one, other)
    a, b = _result(whole), _result(killed)
    scores = lambda run: (run.valid, run.test, run.last, run.step)
    different += ["scores"] if scores(a) != scores(b) else []
    files = [(path / PREDICTIONS_FILE).read_bytes() for path in (whole, killed)]
    different += [PREDICTIONS_FILE] if files[0] != files[1] else []
    if different or not one:
        raise _failed(f"differs after resuming: {join_names(different)}", killed)
    return len(one)


def _arrays(workdir: Path) -> dict[str, str]:
    """Returns the SHA-256 of every array of every checkpoint."""
    return {
        f"step {step:d}: {shown_name(name)}": digest
        for step, record in read_records(workdir / CHECKPOINTS).items()
        for name, digest in record["sha256"].items()
    }


def _result(workdir: Path) -> ModelResult:
    """Returns the result of a finished training."""
    run = read_run(workdir)
    if run is None:
        raise _failed("has no result", workdir)
    return run


def _failed(what: str, workdir: Path) -> MissingDependencyError:
    """Returns the error for a training that failed, with its last line."""
    lines = [line for line in _log(workdir).splitlines() if line.strip()]
    suffix = f" Its last line: {shorten(lines[-1])}" if lines else ""
    return MissingDependencyError(
        "E08",
        f"self-test: the training {shorten(workdir.name)} {shorten(what)}.{suffix}",
        "free disk space, or set TMPDIR to a folder of a local disk; if this does not "
        "help, please report it",
    )


def _log(workdir: Path) -> str:
    """Returns what a training has printed."""
    path = Path(f"{workdir}.log")
    return path.read_text("utf-8", errors="replace") if path.exists() else ""


if __name__ == "__main__":
    main(*sys.argv[1:])
