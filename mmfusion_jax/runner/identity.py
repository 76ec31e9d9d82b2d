"""Compares what a run depends on with what its files record."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from mmfusion_jax.errors import (
    CheckpointError,
    ConfigError,
    shorten,
    shown,
    shown_name,
)
from mmfusion_jax.results.experiment_result import ExperimentResult
from mmfusion_jax.results.json_file import INVALID
from mmfusion_jax.results.run_identity import (
    RunIdentity,
    config_differences,
    config_sha256,
    data_differences,
)
from mmfusion_jax.training.checkpoint.integrity import read_records

RUN, CONFIG, DEVICES = "run", "config", "devices"
"""Names of the identity, the config and the devices in the meta of a checkpoint."""

MAX_NAMED = 4
"""Number of differences that a message names."""

Meta: TypeAlias = Mapping[str, Any]


def check_identity(where: str, found: RunIdentity, wanted: RunIdentity) -> None:
    """Checks that a file of a run belongs to this run and its data.

    Args:
        where: The file or folder, for messages.
        found: What it records.
        wanted: The run.

    Raises:
        ConfigError: It is of another config, fold, seed or stage.
        CheckpointError: Its data were others; names what differs.
    """
    for name in ("fold", "seed", "stage", "config_sha256"):
        a, b = getattr(found, name), getattr(wanted, name)
        if a != b:
            raise ConfigError(
                "C09",
                f"{where} has {shown_name(name)}={shown(a)}, but this run has "
                f"{shown(b)}.",
                "use another --workdir, or restore the files of this run",
            )
    if parts := data_differences(found.data, wanted.data):
        listed = list_differences(parts)
        raise CheckpointError(
            "K07",
            f"{where} is of other data than this run has: {shorten(listed, 600)}.",
            "restore these data, or use another --workdir to train on the new ones",
        )


def list_differences(parts: list[str]) -> str:
    """Returns the first differences, for a message."""
    more = f"; and {len(parts) - MAX_NAMED} more" if len(parts) > MAX_NAMED else ""
    return "; ".join(parts[:MAX_NAMED]) + more


def check_checkpoints(folder: Path, wanted: RunIdentity, config: Meta) -> None:
    """Checks that all checkpoints of a folder belong to this run and its data.

    Corrupted checkpoints are left to those who restore them.

    Args:
        folder: Folder of the checkpoints.
        wanted: The run.
        config: Its config, as JSON values.

    Raises:
        ConfigError: They are of another config, fold, seed or stage.
        CheckpointError: Their data were others, or an older version of the library
            wrote them.
    """
    for step, meta in read_metas(folder):
        where = f"{folder}: step {step}"
        try:
            found = msgspec.convert(meta[RUN], RunIdentity)
            old = msgspec.convert(meta[CONFIG], dict[str, Any])
        except (KeyError, *INVALID) as error:
            raise CheckpointError(
                "K06",
                f"{where} does not record its data and config: another version of "
                "mmfusion_jax wrote it.",
                "use another --workdir, or the version of mmfusion_jax that wrote it",
            ) from error
        check_config(where, old, config)
        check_identity(where, found, wanted)


def read_metas(folder: Path) -> Iterator[tuple[int, Meta]]:
    """Yields the step and the meta of every checkpoint that is not corrupted."""
    for step, record in read_records(folder).items():
        yield step, record["meta"]


def check_result_config(path: Path, result: ExperimentResult) -> None:
    """Raises ConfigError unless `result.json` is of one config.

    Args:
        path: The file.
        result: Its content.
    """
    sha256 = config_sha256(result.config)
    for found in (
        result.config_sha256,
        *(r.identity.config_sha256 for r in result.runs),
    ):
        if found != sha256:
            raise ConfigError(
                "C09",
                f"{path} has config_sha256={shown(found)}, but its config has "
                f"{shown(sha256)}.",
                f"delete {path} and rerun: finished runs are kept",
            )


def check_config(where: str, old: Meta, new: Meta) -> None:
    """Raises ConfigError unless two configs agree, the number of seeds excepted.

    Args:
        where: What has the first one, for the message.
        old: A config, as JSON values.
        new: The config of this run.
    """
    found = config_differences(old, new)
    found.pop("seeds", None)
    if found:
        raise another_config(where, found)


def another_config(where: str, found: Mapping[str, tuple[Any, Any]]) -> ConfigError:
    """Returns the error for a workdir or a file of another config.

    Args:
        where: The workdir or file.
        found: Field -> its value there and in this run.
    """
    # One difference is reported; another part explains those of its options.
    name = min(found, key=lambda name: (not name.endswith("name"), name))
    before, after = found[name]
    return ConfigError(
        "C09",
        f"{where} was created with config.{shorten(name)}={shown(before)}, but "
        f"this run has {shown(after)}.",
        "use another --workdir, or the config of that run",
    )
