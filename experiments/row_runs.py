"""Rows of tables that are trained by one command each, in a folder of their own.

The name of a folder ends with a digest of the config, with all its fields: a row whose
flags or whose config file changed gets a new folder, two rows with the same config
share one, and finished runs are kept.
"""

import dataclasses
import hashlib
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmfusion_jax.cli.flags import Flag, parse
from mmfusion_jax.config.load import flatten
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.results.config_file import read_config
from mmfusion_jax.results.experiment_result import ExperimentResult, read_result
from mmfusion_jax.results.json_file import read_json, write_json
from mmfusion_jax.results.run_identity import UNRECORDED

WALL_TIME_FILE = "wall_time.json"
MAX_SLUG = 60


@dataclasses.dataclass(frozen=True)
class RowRun:
    """The training of a row.

    Attributes:
        words: --config and the flags, without the seeds.
        folder: Workdir, which belongs to this config only.
        modalities: Those of its encoders.
    """

    words: tuple[str, ...]
    folder: Path
    modalities: tuple[str, ...]

    def command(self, seeds: int) -> list[str]:
        """Returns the command that trains the row, resuming if possible."""
        # A folder that was begun with more seeds cannot be given fewer.
        old = read_config(self.folder) if self.folder.exists() else None
        seeds = max(seeds, old.seeds if old else 0)
        words = ["python", "-m", "mmfusion_jax.main", *self.words]
        return [*words, f"--config.seeds={seeds}", f"--workdir={self.folder}"]

    def result(self) -> ExperimentResult | None:
        """Returns the result; None if no seeds are finished."""
        return read_result(self.folder)

    def state(self, seeds: int) -> str:
        """Returns "finished", "interrupted" or "not run", for a number of seeds."""
        result = self.result()
        if result and len({run.seed for run in result.runs}) >= seeds:
            return "finished"
        begun = result is not None or any(self.folder.rglob("checkpoints"))
        return "interrupted" if begun else "not run"

    def wall_s(self) -> float | None:
        """Returns the time of all commands that trained it, in seconds, if known."""
        path = self.folder / WALL_TIME_FILE
        fix = f"delete {path}"
        return (
            read_json(path, dict[str, float], fix)["wall_s"] if path.exists() else None
        )


def row_run(config: str, flags: Sequence[str], runs: Path) -> RowRun:
    """Returns the run of a row, whose flags are checked.

    Args:
        config: Config file below configs/, such as "mea.py:digits".
        flags: Flags such as "--config.model.mu=0".
        runs: Folder of the folders.

    Raises:
        ConfigError: The config does not exist, or a flag is invalid.
    """
    words = (f"--config=configs/{config}", *flags)
    made = parse(words, (Flag("workdir", "", "workdir"),), True).config
    resolve(made)
    digest = config_digest(flatten(made))
    changes = [word.removeprefix("--config.").rsplit(".", 1)[-1] for word in flags]
    slug = re.sub(r"\W+", "_", " ".join([config, *changes])).strip("_")[:MAX_SLUG]
    # The same config may be written with other flags in another table.
    folder = next(iter(sorted(runs.glob(f"*-{digest}"))), runs / f"{slug}-{digest}")
    return RowRun(words, folder, tuple(made.model.encoders))


def config_digest(fields: Mapping[str, Any]) -> str:
    """Returns a digest of all fields of a config that change a run, seeds excepted."""
    ignored = ("seeds", *UNRECORDED)
    kept = {
        name: value
        for name, value in fields.items()
        if not any(f"{name}.".startswith(f"{field}.") for field in ignored)
    }
    text = json.dumps(kept, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def train_rows(runs: Mapping[str, RowRun], seeds: int) -> dict[str, int]:
    """Trains rows, one after the other; finished ones are kept.

    A row whose training fails does not keep the others from being trained.

    Args:
        runs: Row -> its run.
        seeds: Number of seeds.

    Returns:
        Row -> exit code, of the rows that failed.

    Raises:
        SystemExit: A signal arrived; the same command resumes.
    """
    failed = {}
    for name, run in runs.items():
        if run.state(seeds) == "finished":
            continue
        command = run.command(seeds)
        print(f"{name}: {shlex.join(command)}", flush=True)
        begun, before = time.monotonic(), run.wall_s() or 0.0
        code, stopped = _execute(command)
        run.folder.mkdir(parents=True, exist_ok=True)
        wall_s = before + time.monotonic() - begun
        write_json(run.folder / WALL_TIME_FILE, {"wall_s": wall_s})
        if stopped:
            print(f"{name}: interrupted; rerun the same command to resume", flush=True)
            sys.exit(code or 1)
        if code:
            failed[name] = code
    return failed


def _execute(command: Sequence[str]) -> tuple[int, bool]:
    """Runs a command; returns its exit code and whether a signal arrived."""
    arrived: list[int] = []
    children: list[subprocess.Popen] = []

    def forward(number: int, _: object) -> None:
        arrived.append(number)
        for child in children:
            child.send_signal(number)

    numbers = (signal.SIGINT, signal.SIGTERM)  # nohup keeps SIGHUP away
    handlers = {number: signal.signal(number, forward) for number in numbers}
    try:
        # A process group of its own, because a terminal sends Ctrl-C to the whole
        # group: the training would get it twice, and the second one ends it unsaved.
        words = [sys.executable, *command[1:]]
        with subprocess.Popen(words, process_group=0) as child:
            children.append(child)
            for number in arrived:  # before the training was there
                child.send_signal(number)
            code = child.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return code, bool(arrived)
