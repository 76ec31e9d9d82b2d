"""Work folders: each belongs to one config and holds every fold and seed."""

import dataclasses
import errno
import stat
from collections.abc import Iterator
from pathlib import Path

import jax

from mmfusion_jax.config.build_data import fold_numbers
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.errors import (
    CheckpointError,
    MissingDependencyError,
    shorten,
)
from mmfusion_jax.results.config_file import (
    CONFIG_FILE,
    WorkdirConfig,
    read_config,
    write_config,
)
from mmfusion_jax.results.experiment_result import RESULT_FILE, read_result
from mmfusion_jax.results.model_result import RUN_FILE
from mmfusion_jax.results.run_identity import config_differences
from mmfusion_jax.runner.identity import CONFIG, another_config, read_metas

CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints of a run."""


@dataclasses.dataclass(frozen=True)
class RunKey:
    """One fold with one seed.

    Attributes:
        fold: Number of the fold.
        seed: Seed of weights, order and augmentation.
        folder: Relative to the work folder; "." for a run that is alone.
    """

    fold: int
    seed: int
    folder: str


def fold_seed_pairs(spec: ExperimentSpec, workdir: Path) -> list[RunKey]:
    """Returns every fold with every seed of an experiment, and its folder.

    A run that was alone stays at the top of the work folder when seeds are added.
    """
    pairs = [
        (fold, seed)
        for fold in fold_numbers(spec)
        for seed in range(spec.seed, spec.seed + spec.seeds)
    ]
    # Only a run that was alone has its checkpoints at the top.
    top = len(pairs) == 1 or (workdir / CHECKPOINTS).exists()
    folder = lambda fold, seed: (
        "." if top and (fold, seed) == pairs[0] else f"fold_{fold}/seed_{seed}"
    )
    return [RunKey(fold, seed, folder(fold, seed)) for fold, seed in pairs]


def check_workdir(
    spec: ExperimentSpec, workdir: Path, *, create: bool = True, record: bool = True
) -> None:
    """Checks that `workdir` belongs to this config, and records the config in it.

    A folder in which nothing was trained belongs to no config. A folder with trained
    runs may be given more seeds: every seed is a run by itself, so the runs that are
    there stay as they are.

    Args:
        spec: The experiment.
        workdir: The work folder.
        create: True to train in the folder, False to read it only.
        record: False to check only, also with `create`.

    Raises:
        ConfigError: The folder belongs to another config; names the first field that
            differs.
        CheckpointError: The folder has runs whose config is not known.
        MissingDependencyError: E06, the folder cannot be used.
    """
    check_is_folder(workdir)
    # config.json is written before the first checkpoint: without any file of a run,
    # nothing depends on it.
    new = spec.source
    used = has_runs(workdir)
    recorded = read_config(workdir) if used or not create else None
    old = recorded or (_recover_config(workdir) if used else None)
    found = {} if old is None else config_differences(old.config, new)
    more = create and old is not None and spec.seeds > old.seeds
    if more:
        del found["seeds"]
    if found:
        raise another_config(str(workdir), found)
    # Only one process writes; all have checked the same.
    create = create and record and jax.process_index() == 0
    if create and (more or recorded is None):
        write_config(workdir, WorkdirConfig(spec.seeds, {**new}))


RUN_FOLDERS = (
    *("", "fold_*/seed_*/", "seed_*/"),
    *("stages/*/", "fold_*/seed_*/stages/*/", "seed_*/stages/*/"),
)
"""Patterns of the folders of runs and stages in a work folder."""


def has_runs(workdir: Path) -> bool:
    """Returns whether something was trained in a work folder."""
    return any(_files_of_runs(workdir))


def _files_of_runs(
    workdir: Path, names: tuple[str, ...] = (RESULT_FILE, RUN_FILE, CHECKPOINTS)
) -> Iterator[Path]:
    """Yields the results and the folders of checkpoints of a work folder."""
    # Not all folders below it, which may be other work folders.
    for name in names:
        for folder in RUN_FOLDERS:
            yield from workdir.glob(f"{folder}{name}")


def _recover_config(workdir: Path) -> WorkdirConfig:
    """Returns the config of a work folder without config.json, from its other files.

    Raises:
        CheckpointError: No file of the folder has its config.
    """
    if (result := read_result(workdir)) is not None:
        return WorkdirConfig(result.config["seeds"], result.config)
    found = [
        meta[CONFIG]
        for path in _files_of_runs(workdir, (CHECKPOINTS,))
        for _, meta in read_metas(path)
        if isinstance(meta.get(CONFIG), dict)
    ]
    if found:
        # A seed that was added later has checkpoints with a larger number of seeds.
        config = max(found, key=lambda one: one["seeds"])
        return WorkdirConfig(config["seeds"], config)
    raise CheckpointError(
        "K05",
        f"{workdir} contains runs, but {CONFIG_FILE} is missing and no other file has "
        "their config.",
        f"restore {CONFIG_FILE}, or use another --workdir",
    )


def check_is_folder(workdir: Path) -> None:
    """Raises MissingDependencyError unless a path is a folder or does not exist."""
    try:
        mode = workdir.stat().st_mode
    except FileNotFoundError:
        if workdir.is_symlink():
            raise unusable(workdir, None) from None
        return
    except OSError as error:
        raise unusable(workdir, error) from error
    if not stat.S_ISDIR(mode):
        raise unusable(workdir, None)


PROBLEMS = {
    errno.ENAMETOOLONG: ("its name is too long", "use a shorter --workdir"),
    errno.ENOENT: ("it cannot be created there", ""),
    errno.ELOOP: ("it is a symbolic link to itself", "delete the link"),
    errno.EROFS: ("the file system is read-only", ""),
    errno.EACCES: ("permission denied", ""),
    errno.EPERM: ("permission denied", ""),
    errno.ENOSPC: ("the disk is full", "free disk space"),
    errno.EDQUOT: ("the disk quota is used up", "free disk space"),
}
"""Number of an error -> the problem of a work folder and its fix."""


def unusable(workdir: Path, error: OSError | None) -> MissingDependencyError:
    """Returns the error for a path that cannot be a work folder.

    Args:
        workdir: The path.
        error: What the operating system reports; None for a path that exists and is
            not a folder.
    """
    number = error.errno if error else None
    problem, fix = PROBLEMS.get(number or 0, ("", ""))
    if not problem:
        problem = _not_a_folder(workdir) or shorten(error and error.strerror or error)
    path = shorten(workdir, 120 if number == errno.ENAMETOOLONG else 4096)
    return MissingDependencyError(
        "E06",
        f"--workdir={path} cannot be used: {problem}.",
        fix or "use another --workdir, a folder that you can write to",
    )


def _not_a_folder(workdir: Path) -> str:
    """Returns why a path is not a folder; "" if it is one, or could become one."""
    # The first of its parents that exists may be a file.
    for path in (workdir, *workdir.parents):
        what = "it" if path == workdir else str(path)
        try:
            mode = path.stat().st_mode
        except OSError:
            if path.is_symlink():
                return f"{what} is a broken symbolic link"
            continue
        kinds = {stat.S_IFREG: "file", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
        kind = kinds.get(stat.S_IFMT(mode), "special file")
        return "" if stat.S_ISDIR(mode) else f"{what} is a {kind}, not a folder"
    return ""
