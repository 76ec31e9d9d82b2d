"""Compares finished runs on the same test examples.

python -m mmfusion_jax compare runs/mea runs/late_fusion
"""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfusion_jax.cli.command import Command
from mmfusion_jax.cli.flags import Flag, ParsedCommand
from mmfusion_jax.errors import (
    CheckpointError,
    ConfigError,
    printable,
    shorten,
    shown,
    shown_name,
)
from mmfusion_jax.paths import local_path

if TYPE_CHECKING:  # slow to import, and needed only once the flags are valid
    import numpy as np

    from mmfusion_jax.analysis.comparison import FinishedExperiment
    from mmfusion_jax.results.comparison_result import ComparisonResult
    from mmfusion_jax.results.experiment_result import ExperimentResult, RunResult
    from mmfusion_jax.results.model_result import TaskInfo
    from mmfusion_jax.results.predictions_file import Predictions

SUFFIXES = (".html", ".svg", ".png")
UNREPORTED = ("batch_size", "fold", "folds", "label", "name", "num_read_threads")
"""Fields of `config.data` that do not change the test examples, or are checked."""

DELETE = (
    "delete both files and result.json of the workdir, and rerun the training: its "
    "checkpoints are kept"
)
TOLERANCE = 1e-5
"""Difference to which the stored predictions must give the stored score."""


def compare_command(command: ParsedCommand) -> None:
    """Compares runs; prints tables or, with --json, one JSON object."""
    file = local_path("--output", command.flags["output"])
    if file.suffix not in SUFFIXES:
        raise ConfigError(
            "C03",
            f"--output={shown(str(file))} does not end with a known format.",
            f"known: {', '.join(SUFFIXES)}",
        )
    # With --json, stdout is one JSON object, also if a part of the user prints.
    with contextlib.redirect_stdout(sys.stderr):
        result = compare_runs(command.positionals)
    from mmfusion_jax.report.comparison import write_comparison
    from mmfusion_jax.results.json_file import dumps

    write_comparison(file, result)
    if command.flags["json"]:
        print(dumps(result))
    else:
        show(result)
    print(printable(f"comparison: {file}"), file=sys.stderr)


def compare_runs(workdirs: Sequence[str]) -> "ComparisonResult":
    """Returns the comparison of finished experiments with the first one.

    Experiments with different seeds are compared on the seeds that all of them have, if
    there are any.

    Args:
        workdirs: Their workdirs, at least two.

    Raises:
        ConfigError: There are fewer than two, or they cannot be compared.
        CheckpointError: One is not finished, has no predictions, or is corrupted.
    """
    if len(workdirs) < 2:
        raise ConfigError(
            "C38",
            "compare needs at least two runs.",
            "python -m mmfusion_jax compare runs/a runs/b",
        )
    paths = [local_path("the argument", workdir) for workdir in workdirs]
    folders = [path.resolve() for path in paths]
    for path, folder in zip(paths, folders, strict=True):
        if folders.count(folder) > 1:
            raise ConfigError("C38", f"{path} is given twice.", "different runs")
    results = [_read_result(path) for path in paths]
    for path, result in zip(paths[1:], results[1:], strict=True):
        _check_same(paths[0], path, _settings(results[0]), _settings(result))
        _check_data(paths[0], path, results[0], result)
    results, seed_note = _common_seeds(results)
    stored = [_read_all(*pair) for pair in zip(paths, results, strict=True)]
    for path, found in zip(paths, stored, strict=True):
        _check_examples(paths[0], path, stored[0], found)
    from mmfusion_jax.analysis.comparison import FinishedExperiment, compare

    ids = {fold: found.ids for (fold, _), found in stored[0].items()}
    experiments = [
        FinishedExperiment(
            name,
            str(path),
            result,
            ids,
            {key: _arrays(one, ids[key[0]], result) for key, one in found.items()},
        )
        for name, path, result, found in zip(
            _short_names(paths), paths, results, stored, strict=True
        )
    ]
    _check_scores(experiments)
    return compare(experiments, [*seed_note, *_notes(paths, results)])


def _read_result(path: Path) -> "ExperimentResult":
    """Returns the result of a finished experiment."""
    from mmfusion_jax.results.experiment_result import read_result

    result = read_result(path)
    if result is None:
        what = "is not finished: it has no result.json" if path.is_dir() else (
            "does not exist or is not a folder"
        )  # fmt: skip
        raise CheckpointError(
            "K01",
            f"{path} {what}.",
            "train first, with --workdir set to this folder; an interrupted training "
            "resumes",
        )
    _check_files(path, result)
    return result


def _common_seeds(
    results: "Sequence[ExperimentResult]",
) -> "tuple[list[ExperimentResult], list[str]]":
    """Returns the results on their common seeds, and a note if some are left out.

    The average over more seeds is closer to 0 or 1 on fewer examples, so experiments
    with different numbers of seeds would not be compared fairly.
    """
    from mmfusion_jax.results.summarize import with_seeds

    seeds = [{run.seed for run in result.runs} for result in results]
    common = set.intersection(*seeds)
    if not common or all(one == common for one in seeds):
        return [*results], []
    note = (
        f"only the seeds that every run has are compared: {shown(sorted(common))[1:-1]}"
    )
    return [with_seeds(result, common) for result in results], [note]


def _check_files(path: Path, result: "ExperimentResult") -> None:
    """Checks that `result.json` belongs to the other files of its workdir.

    Raises:
        ConfigError: They are of another config, fold or seed.
        CheckpointError: They are of other data.
    """
    from mmfusion_jax.results.config_file import CONFIG_FILE, read_config
    from mmfusion_jax.results.experiment_result import RESULT_FILE
    from mmfusion_jax.results.model_result import RUN_FILE, read_run
    from mmfusion_jax.runner.identity import (
        check_config,
        check_identity,
        check_result_config,
    )

    check_result_config(path / RESULT_FILE, result)
    if (recorded := read_config(path)) is not None:
        check_config(str(path / CONFIG_FILE), recorded.config, result.config)
    for run in result.runs:
        folder = path / run.folder
        if (alone := read_run(folder)) is not None:
            check_identity(str(folder / RUN_FILE), alone.identity, run.identity)


def _check_data(
    path: Path, folder: Path, a: "ExperimentResult", b: "ExperimentResult"
) -> None:
    """Raises ConfigError if data with the same options differ between two runs."""
    from mmfusion_jax.results.run_identity import data_differences

    if _data_options(a) != _data_options(b):
        return  # which is a note; labels of test examples are compared by id
    of_fold = {run.fold: run.identity.data for run in a.runs}
    for run in b.runs:
        found = data_differences(
            of_fold[run.fold], run.identity.data, separator=" and "
        )
        if found:
            raise _differ(path, folder, "; ".join(["the data differ", *found[:4]]))


def _read_all(
    path: Path, result: "ExperimentResult"
) -> "dict[tuple[int, int], Predictions]":
    """Returns the predictions of every fold and seed."""
    found = {(run.fold, run.seed): _read_run(path, run) for run in result.runs}
    for run in result.runs:
        if not _fits(found[run.fold, run.seed], result.task):
            where = path / run.folder
            raise CheckpointError(
                "K05",
                f"{where}: predictions.json does not fit the label "
                f"{shown(result.task.label)} of run.json.",
                DELETE,
            )
    return found


def _read_run(workdir: Path, run: "RunResult") -> "Predictions":
    from mmfusion_jax.results.experiment_result import RESULT_FILE
    from mmfusion_jax.results.model_result import RUN_FILE
    from mmfusion_jax.results.predictions_file import PREDICTIONS_FILE, read_predictions

    folder = workdir / run.folder
    found = read_predictions(folder)
    if found is None:
        path, file, table = (
            folder / PREDICTIONS_FILE,
            folder / RUN_FILE,
            workdir / RESULT_FILE,
        )
        raise CheckpointError(
            "K01",
            f"{path} does not exist: this run was trained by an older version, or is "
            "a copy without its predictions.",
            f"delete {file} and {table} and rerun the training: its checkpoints are "
            "kept",
        )
    return found


def _settings(result: "ExperimentResult") -> dict[str, Any]:
    """Returns what must be the same in all runs, by name."""
    task, counts = result.task, result.data.counts
    return {
        "dataset": result.data.name,
        "label": task.label,
        "type of label": task.kind,
        "classes": task.classes,
        "flags": task.flags,
        "range": task.range,
        "protocol": result.protocol,
        "folds": sorted({run.fold for run in result.runs}),
        **{f"number of {split} examples": count for split, count in counts.items()},
    }


def _check_same(
    path: Path, folder: Path, a: Mapping[str, Any], b: Mapping[str, Any]
) -> None:
    """Raises ConfigError for what differs between two runs."""
    parts = [
        f"{shown_name(name)} {shown(a.get(name))} and {shown(b.get(name))}"
        for name in {**a, **b}
        if a.get(name) != b.get(name)
    ]
    if parts:
        raise _differ(path, folder, "; ".join(parts))


def _differ(path: Path, folder: Path, what: str) -> ConfigError:
    return ConfigError(
        "C38",
        f"{path} and {folder} cannot be compared: {shorten(what)}.",
        "train both with the same dataset, label and protocol",
    )


def _check_examples(
    path: Path,
    folder: Path,
    a: "Mapping[tuple[int, int], Predictions]",
    b: "Mapping[tuple[int, int], Predictions]",
) -> None:
    """Raises ConfigError unless two runs have the same test examples and labels."""
    of_fold = {fold: found for (fold, _), found in a.items()}
    for (fold, seed), found in b.items():
        want = of_fold[fold]
        run = f"fold {fold}, seed {seed}"
        labels = dict(zip(want.ids, want.y_true, strict=True))
        if odd := sorted({*found.ids} ^ {*want.ids}):
            where = path if odd[0] in labels else folder
            raise _differ(
                path,
                folder,
                f"{len(odd)} test examples of {run} are in one only, such as "
                f"{shown(odd[0])} in {where}",
            )
        for name, label in zip(found.ids, found.y_true, strict=True):
            if label != labels[name]:
                raise _differ(
                    path,
                    folder,
                    f"test example {shown(name)} of {run} has the label "
                    f"{shown(labels[name])} and {shown(label)}",
                )


def _arrays(
    found: "Predictions", ids: Sequence[str], result: "ExperimentResult"
) -> "dict[str, np.ndarray]":
    """Returns labels and predictions in the order of `ids`, as metrics read them."""
    row = {name: i for i, name in enumerate(found.ids)}
    order = [row[name] for name in ids]
    truth, prediction = found.truth[order], found.prediction[order]
    if result.task.kind != "regression":
        truth = truth.astype(int)
    return {"truth": truth, "prediction": prediction}


def _fits(found: "Predictions", task: "TaskInfo") -> bool:
    """Returns whether labels and predictions are those of a type of label."""
    truth, prediction, n = found.truth, found.prediction, len(found.ids)
    if task.kind == "regression":
        return truth.shape == (n,) and prediction.size == n
    number = len(task.classes) or 2
    shape = (n, len(task.flags)) if task.flags else (n,)
    width = 2 * len(task.flags) or number
    classes = (truth == truth.round()) & (truth >= 0) & (truth < number)
    return truth.shape == shape and prediction.shape == (n, width) and classes.all()


def _check_scores(experiments: "Sequence[FinishedExperiment]") -> None:
    """Raises CheckpointError unless the predictions give the scores of the results."""
    from mmfusion_jax.analysis.comparison import recomputed_scores

    for one in experiments:
        for run in one.result.runs:
            found = recomputed_scores(one, (run.fold, run.seed))
            for name, value in found.items():
                stored = run.test.scores[name]
                if stored is not None and abs(value - stored) > TOLERANCE:
                    where = Path(one.workdir, run.folder)
                    raise CheckpointError(
                        "K05",
                        f"{where}: predictions.json gives {shown_name(name)} "
                        f"{value:.6g}, but run.json has {stored:.6g}.",
                        DELETE,
                    )


def _short_names(paths: Sequence[Path]) -> list[str]:
    """Returns the last part of each path, or all of it if two are the same."""
    names = [path.resolve().name for path in paths]
    return names if len({*names}) == len(names) else [str(path) for path in paths]


def _notes(
    paths: Sequence[Path], results: "Sequence[ExperimentResult]"
) -> Iterator[str]:
    """Yields what differs between runs that can be compared."""
    path, first = paths[0], results[0]
    for folder, other in zip(paths[1:], results[1:], strict=True):
        a, b = (_data_options(one) for one in (first, other))
        for name in sorted({*a, *b}):
            if a.get(name) != b.get(name):
                one, two = (
                    shown(options[name]) if name in options else "not set"
                    for options in (a, b)
                )
                yield (
                    f"config.data.{shown_name(name)} is {shorten(one)} in {path} and "
                    f"{shorten(two)} in {folder}"
                )
        if other.selection_metric != first.selection_metric:
            yield (
                f"checkpoints are selected by {shown_name(first.selection_metric)} in "
                f"{path} and by {shown_name(other.selection_metric)} in {folder}"
            )
        if other.config.get("losses") != first.config.get("losses"):
            yield f"the loss of {path} and that of {folder} have different terms"
        common = {run.seed for run in first.runs} & {run.seed for run in other.runs}
        if len(common) < 2:
            yield (
                f"{path} and {folder} have fewer than two seeds in common, which the "
                "test over seeds needs"
            )
        if other.device != first.device:
            yield (
                f"{path} and {folder} were trained on different devices: their times "
                "and memory are not comparable"
            )


def _data_options(result: "ExperimentResult") -> dict[str, Any]:
    """Returns the options of the data that are set and are not those of the dataset.

    A config that leaves an option out, one that has its default, and one that has an
    empty value read the same data.
    """
    from mmfusion_jax.config.instantiate import arguments_of
    from mmfusion_jax.config.registry import load_part

    data = dict(result.config.get("data") or {})
    defaults: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # a dataset of a package that is not there
        target = load_part("dataset", data["name"], "config.data.name")
        for name, argument in arguments_of(target).items():
            default = argument.default
            # JSON has lists only.
            defaults[name] = list(default) if isinstance(default, tuple) else default
    return {
        name: value
        for name, value in data.items()
        if name not in UNREPORTED and _is_set(value) and value != defaults.get(name)
    }


def _is_set(value: Any) -> bool:
    """Returns whether a value of an option is not empty; rates of 0 are not set."""
    if isinstance(value, Mapping):
        return any(rate not in (None, 0) for rate in value.values())
    return value is not None and value != "" and value != []


def show(result: "ComparisonResult") -> None:
    """Prints a comparison as tables."""
    from rich.console import Console
    from rich.table import Table

    from mmfusion_jax.report.comparison import lead, notes, tables

    console = Console(highlight=False, markup=False)
    console.print(shorten(lead(result)))
    for part in tables(result):
        table = Table(title=shorten(part.caption), title_justify="left")
        for number, head in enumerate(part.heads):
            # Folded: the default cuts a head that is too long for a narrow terminal.
            table.add_column(
                shorten(head),
                justify="right" if number else "left",
                overflow="fold",
            )
        for cells in part.rows:
            row = [shorten(cell) for cell in cells]
            table.add_row(*row)
        console.print(table)
    for line in notes(result):
        console.print(shorten(line), style="dim")


COMMAND = Command(
    "mmfusion_jax compare",
    "Compares finished runs on the same test examples, with tests and intervals.",
    compare_command,
    (Flag("output", "comparison.html", "page, or picture (.svg, .png), to write"),),
    needs_config=False,
    positional="RUN RUN ...",
)
