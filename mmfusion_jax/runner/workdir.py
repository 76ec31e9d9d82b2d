"""A work folder: it belongs to one config, and holds every fold with every seed."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mmfusion_jax.config import build
from mmfusion_jax.config.instantiate import Config
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.runner import provenance


@dataclasses.dataclass(frozen=True)
class RunKey:
    """One fold with one seed.

    Attributes:
        fold: its number.
        seed: of weights, order and augmentation.
        folder: relative to the work folder; "." for one that was asked for alone.
    """

    fold: int
    seed: int
    folder: str


def fold_seed_pairs(config: Config, workdir: Path) -> list[RunKey]:
    """Every fold with every seed that a config asks for, and where each lies.

    A unit that was alone stays at the top of the folder when seeds are added.
    """
    pairs = [
        (fold, seed)
        for fold in build.folds(config)
        for seed in range(config.seed, config.seed + config.seeds)
    ]
    top = len(pairs) == 1 or (workdir / "checkpoints").exists()
    folder = lambda fold, seed: (
        "." if top and (fold, seed) == pairs[0] else f"fold_{fold}/seed_{seed}"
    )
    return [RunKey(fold, seed, folder(fold, seed)) for fold, seed in pairs]


def check_workdir(config: Config, workdir: Path, *, create: bool = True) -> None:
    """Makes sure that `workdir` belongs to this config and to no other.

    A folder in which nothing was trained yet belongs to nobody. One that is trained in
    may be given more seeds: every seed is a run of its own, so those that are there
    stay as they are.

    Args:
        config: resolved.
        workdir: the folder.
        create: it is to be trained in, not only read.

    Raises:
        ConfigError: naming the first key that differs.
    """
    path = workdir / "config.json"
    ours = json.loads(config.to_json())
    owned = path.exists() and (not create or any(workdir.rglob("checkpoints")))
    theirs = json.loads(path.read_text(encoding="utf-8")) if owned else ours
    found = differences(theirs, ours)
    more = create and ours["seeds"] > theirs["seeds"]
    if more:
        del found["seeds"]
    for key, (old, new) in found.items():
        raise ConfigError(
            "C09",
            f"{workdir} holds a run with config.{key}={old!r}, not {new!r}.",
            "choose another --workdir, or the config of that run",
        )
    if create and (more or not owned) and jax.process_index() == 0:
        provenance.write_json(path, ours)


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (old, new) of everything that differs; None where it is absent.

    Where a process runs, and how far it reads ahead, does not change a run.
    """
    found = {}
    for key in sorted({*old, *new}):
        name = f"{prefix}{key}"
        a, b = old.get(key), new.get(key)
        if name in ("distributed", "data.threads", "train.log_every") or a == b:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= differences(a, b, f"{name}.")
        else:
            found[name] = (a, b)
    return found
