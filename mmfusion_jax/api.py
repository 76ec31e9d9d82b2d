"""Trains and evaluates from Python as the commands do from a shell."""

import shlex
from collections.abc import Mapping
from os import PathLike
from typing import Any

from ml_collections import ConfigDict

from mmfusion_jax.cli.flags import Flag, ParsedCommand, parse
from mmfusion_jax.config.load import format_value
from mmfusion_jax.config.resolve import distributed_spec, resolve
from mmfusion_jax.errors import ConfigError, shown, shown_path, type_name
from mmfusion_jax.metrics.nonfinite import undefined_in_evaluations, undefined_in_runs
from mmfusion_jax.paths import local_path
from mmfusion_jax.results.experiment_result import ExperimentResult, RunEvaluation
from mmfusion_jax.runner import experiment
from mmfusion_jax.runner.run_checkpoints import log
from mmfusion_jax.runner.runtime import initialize
from mmfusion_jax.training.signals import GracefulShutdown

WORKDIR = Flag("workdir", "", "the work folder")


def train(
    config: str | ConfigDict,
    workdir: str | PathLike[str] = "",
    overrides: Mapping[str, Any] | None = None,
) -> ExperimentResult:
    """Trains a config, or resumes its training; does what the command `train` does.

    Prints its progress on stderr, and writes the same files. The first Ctrl-C saves and
    raises Interrupted, the second one raises KeyboardInterrupt.

    The result prints as the final table:

        result = mmf.train("mea:mosi", "runs/mea", {"train.epochs": 5, "seeds": 3})
        print(result)

    Example:
        >>> import mmfusion_jax as mmf
        >>> try:
        ...     result = mmf.train("cfn_sr", overrides={"train.epoch": 5})
        ... except mmf.ConfigError as error:
        ...     print(error.code, error.fix)
        C02 did you mean 'epochs'?

    Args:
        config: A config file with the part after its colon, such as "mea:mosi", or a
            config.
        workdir: The work folder; by default that of the command, such as
            "runs/mea_mosi". A config that is not a file needs one.
        overrides: Field without "config." -> value, as flags set them in a shell.

    Raises:
        UserError: An error of the user, such as a wrong field, with its code and fix.
        Interrupted: Ctrl-C; everything is saved.
    """
    request = _parse(config, workdir, overrides)
    initialize(distributed_spec(request.config))
    result = experiment.train(
        resolve(request.config),
        request.workdir,
        _command(config, request),
        GracefulShutdown(exits=False),
    )
    experiment.check_finite(undefined_in_runs(result.runs))
    return result


def evaluate(
    config: str | ConfigDict,
    workdir: str | PathLike[str] = "",
    overrides: Mapping[str, Any] | None = None,
) -> list[RunEvaluation]:
    """Returns the scores of the selected checkpoints, by fold and seed.

    Example:
        >>> import mmfusion_jax as mmf
        >>> try:
        ...     (run,) = mmf.evaluate("cfn_sr", "runs/nothing")
        ...     accuracy = run.splits["test"].scores["accuracy"]
        ... except mmf.CheckpointError as error:
        ...     print(error.code, error.fix)
        K01 train first, with the same config and --workdir

    Args:
        config: As for `train`.
        workdir: As for `train`.
        overrides: As for `train`.

    Raises:
        UserError: An error of the user, such as a work folder without a checkpoint.
    """
    request = _parse(config, workdir, overrides)
    initialize(distributed_spec(request.config))
    runs = experiment.evaluate(resolve(request.config), request.workdir)
    experiment.check_finite(undefined_in_evaluations(runs))
    return runs


def _parse(
    config: str | ConfigDict,
    workdir: str | PathLike[str],
    overrides: Mapping[str, Any] | None,
) -> ParsedCommand:
    """Returns the command that a shell would parse."""
    _check_arguments(workdir, overrides)
    words = [
        f"--config.{name}={format_value(value)}"
        for name, value in (overrides or {}).items()
    ]
    path = local_path("workdir", workdir) if workdir else ""
    words.append(f"--workdir={path}")
    if isinstance(config, ConfigDict):
        if not workdir:
            raise ConfigError(
                "C01",
                "workdir is required for a config that is not a file.",
                'workdir="runs/NAME"',
            )
        request = parse(words, (WORKDIR,), needs_config=True, given_config=config)
    elif isinstance(config, str):
        request = parse([f"--config={config}", *words], (WORKDIR,), needs_config=True)
    else:
        raise ConfigError(
            "C01",
            f"config={shown(config)} is {type_name(config)}, not a string or a "
            "ConfigDict.",
            'such as "mea:mosi"',
        )
    for note in request.notes:
        log(note)
    return request


def _check_arguments(workdir: Any, overrides: Any) -> None:
    """Raises ConfigError for a work folder or overrides of the wrong type."""
    if not isinstance(workdir, str | PathLike):
        raise ConfigError(
            "C01", f"workdir={shown(workdir)} is {type_name(workdir)}, not a path."
        )
    if overrides is not None and not isinstance(overrides, Mapping):
        raise ConfigError(
            "C01",
            f"overrides={shown(overrides)} is {type_name(overrides)}, not a mapping.",
            'such as {"train.epochs": 5}',
        )
    for name in map(str, overrides or {}):
        if name.startswith("config."):
            raise ConfigError(
                "C02",
                f"overrides has the field {shown(name)}, with 'config.'.",
                shown(name.removeprefix("config.")),
            )


def _command(config: str | ConfigDict, request: ParsedCommand) -> str:
    """Returns the command line that does the same, for the report."""
    if isinstance(config, ConfigDict):
        return f"mmfusion_jax.train(config, workdir={shown_path(request.workdir)})"
    words = [word for word in request.args if word != "--workdir="]
    return shlex.join(["python", "-m", "mmfusion_jax.main", *words])
