"""Work folders: each belongs to one config and holds every fold and seed."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mmfusion_jax.config.build_data import fold_numbers
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.errors import ConfigError, shorten, shown
from mmfusion_jax.results.config_file import WorkdirConfig, read_config, write_config

UNRECORDED = (
    "distributed",
    "data.num_read_threads",
    "train.log_every",
    "train.parallel_seeds",
    "train.diagnosis",
)
"""Fields that do not change a run."""


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
    top = len(pairs) == 1 or (workdir / "checkpoints").exists()
    folder = lambda fold, seed: (
        "." if top and (fold, seed) == pairs[0] else f"fold_{fold}/seed_{seed}"
    )
    return [RunKey(fold, seed, folder(fold, seed)) for fold, seed in pairs]


def check_workdir(spec: ExperimentSpec, workdir: Path, *, create: bool = True) -> None:
    """Checks that `workdir` belongs to this config, and records the config in it.

    A folder in which nothing was trained belongs to no config. A folder with trained
    runs may be given more seeds: every seed is a run by itself, so the runs that are
    there stay as they are.

    Args:
        spec: The experiment.
        workdir: The work folder.
        create: True to train in the folder, False to read it only.

    Raises:
        ConfigError: The folder belongs to another config; names the first field that
            differs.
    """
    # config.json is written before the first checkpoint: without one, nothing depends
    # on it.
    new = spec.source
    used = not create or any(workdir.rglob("checkpoints"))
    old = read_config(workdir) if used else None
    found = differences(new if old is None else old.config, new)
    more = create and old is not None and spec.seeds > old.seeds
    if more:
        del found["seeds"]
    # One difference is reported; another part explains those of its options.
    for name in sorted(found, key=lambda name: (not name.endswith("name"), name)):
        before, after = found[name]
        raise ConfigError(
            "C09",
            f"{workdir} was created with config.{shorten(name)}={shown(before)}, but "
            f"this run has {shown(after)}.",
            "use another --workdir, or the config of that run",
        )
    # Only one process writes; all have checked the same.
    if create and (more or old is None) and jax.process_index() == 0:
        write_config(workdir, WorkdirConfig(spec.seeds, {**new}))


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Returns the fields that differ, by full name: (old, new), None where absent.

    Fields that do not change a run are left out.
    """
    found = {}
    for key in sorted({*old, *new}):
        name = f"{prefix}{key}"
        a, b = old.get(key), new.get(key)
        if name in UNRECORDED or a == b:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= differences(a, b, f"{name}.")
        else:
            found[name] = (a, b)
    return found
