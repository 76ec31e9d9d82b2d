"""`config.json`: the config that a work folder belongs to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmfusion_jax.results.json_file import read_json, write_json

CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class WorkdirConfig:
    """Config of a work folder.

    Attributes:
        seeds: Number of seeds.
        config: All fields, as JSON values.
    """

    seeds: int
    config: dict[str, Any]


def read_config(workdir: Path) -> WorkdirConfig | None:
    """Reads the config of a work folder; None if it has no config.

    Raises:
        CheckpointError: The file is corrupted or has another format version.
    """
    path = workdir / CONFIG_FILE
    fix = f"delete {path} and rerun: the results and checkpoints have the config too"
    return read_json(path, WorkdirConfig, fix) if path.exists() else None


def write_config(workdir: Path, config: WorkdirConfig) -> None:
    """Records the config of a work folder."""
    write_json(workdir / CONFIG_FILE, config)
