"""Imports, checks, lists and removes datasets.

python -m mmfusion_jax data import FILE --dataset=mosi
python -m mmfusion_jax data import FOLDER --dataset=av_mnist
python -m mmfusion_jax data check mosi
python -m mmfusion_jax data init FOLDER
python -m mmfusion_jax data check FOLDER
python -m mmfusion_jax data list
python -m mmfusion_jax data remove mosi
"""

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mmfusion_jax.cli.command import Command, run_subcommand
from mmfusion_jax.cli.flags import Flag, ParsedCommand
from mmfusion_jax.commands import clip_folders
from mmfusion_jax.data.feature_files.known_datasets import FEATURE_DATASETS
from mmfusion_jax.data.storage.file_size import format_size
from mmfusion_jax.errors import ConfigError, printable, shorten, shown_name
from mmfusion_jax.paths import local_path

# Slow to import, and needed only once the flags are known to be valid.
if TYPE_CHECKING:
    from mmfusion_jax.commands.train_commands import TrainCommands
    from mmfusion_jax.data.feature_files.summary import FileSummary

T = TypeVar("T")
NAMES = tuple(FEATURE_DATASETS)
AV_MNIST = "av_mnist"
"""The dataset that is built from a folder of raw files."""

AV_MNIST_CONFIG = "configs/hetero_fusion_net.py:av_mnist"
LIMITS = (
    Flag("max_memory_gb", 0.0, "memory limit in GB (default: 4 times the file size)"),
    Flag("max_cpu_seconds", 0, "CPU time limit in seconds (default: by file size)"),
    Flag("timeout", 0, "time limit in seconds (default: twice the CPU time limit)"),
)


def import_command(command: ParsedCommand) -> None:
    """Imports a feature file, or a folder of raw files, and prints a summary."""
    if command.flags["dataset"] == AV_MNIST:
        _import_av_mnist(command)
        return
    # Slow imports, needed only once the flags are known to be valid.
    from mmfusion_jax.commands.check_features import finding_lines
    from mmfusion_jax.commands.train_commands import find_train_commands
    from mmfusion_jax.data.datasets.sentiment_files import (
        describe_imports,
        list_imports,
    )
    from mmfusion_jax.data.feature_files.findings import find_problems
    from mmfusion_jax.data.feature_files.importer import FOLDER
    from mmfusion_jax.data.feature_files.summary import (
        ImportSummary,
        class_lines,
        header_lines,
        table_lines,
    )
    from mmfusion_jax.data.storage.array_record_store import cache_folder

    name = command.flags["dataset"]
    path = local_path("the argument", command.positional)
    arguments = {
        "file": str(path),
        "name": name,
        "parent": str(cache_folder(FOLDER) / name),
        "nan_to_zero": command.flags["nan_to_zero"],
        "drop_bad": command.flags["drop_bad"],
        "equal_clips": command.flags["equal_clips"],
    }
    found = _run_sandboxed("import_file", arguments, ImportSummary, path, command)
    # With several imports, the commands must name one of them.
    imports = list_imports(name)
    file = Path(found.folder).name if len(imports) > 1 else ""
    training = find_train_commands(found, file)
    if command.flags["json"]:
        _print_json({**vars(found), **vars(training)})
        return
    _show("\n".join([*header_lines(found), *table_lines(found), *class_lines(found)]))
    for line in finding_lines(find_problems(found)):
        _show(f"  {line}")
    _print_imported(found.folder, found.already_imported)
    _show(f"license: {shorten(found.license)}")
    for line in describe_imports(name, imports) if file else ():
        _show(f"  import of {shown_name(name)}: {line}")
    _print_train_commands(training)
    suffix = f" --file={file}" if file else ""
    _show(f"check:  python -m mmfusion_jax data check {shown_name(name)}{suffix}")


def _print_train_commands(training: "TrainCommands") -> None:
    """Prints the commands that train on an import, each of them traced before."""
    for line in training.misfits:
        _show(f"  {line}")
    for line in training.commands:
        _show(f"train:  {line}")
    if not training.commands:
        _show("no config of this library fits the file as it is")


def check_command(command: ParsedCommand) -> int:
    """Prints the statistics of a file or an import; returns 1 if there are problems."""
    if command.positional == AV_MNIST:
        _print_av_mnist(command)
        return 0
    if clip_folders.is_clip_folder(command):
        return clip_folders.check_command(command)
    from mmfusion_jax.commands import check_features
    from mmfusion_jax.data.feature_files.findings import find_problems

    check = _check_import if command.positional in NAMES else _check_file
    found = check(command)
    if command.flags["json"]:
        _print_json(found)
    else:
        _show(check_features.format_report(found))
    return int(bool(find_problems(found).problems))


def list_command(command: ParsedCommand) -> None:
    """Prints the imports and other prepared data in the cache."""
    from mmfusion_jax.data.cache import list_stores
    from mmfusion_jax.data.storage.array_record_store import cache_folder

    stores = list_stores()
    if command.flags["json"]:
        _print_json(stores)
        return
    width = max((len(shorten(store.name)) for store in stores), default=0)
    for store in stores:
        size, about = format_size(store.bytes), shorten(store.description)
        _show(f"{shorten(store.name):{width}}  {size:>9}  {about}")
    total = format_size(sum(store.bytes for store in stores))
    folder = cache_folder("")
    suffix = "" if len(stores) == 1 else "s"
    _show(f"{len(stores)} dataset{suffix}, {total} in {folder}")


def remove_command(command: ParsedCommand) -> int:
    """Deletes an import or other prepared data, after confirmation."""
    from mmfusion_jax.data.cache import check_removable, find_store, remove_store

    store = find_store(command.positional)
    check_removable(store)
    about = f"{store.folder} ({format_size(store.bytes)}, {shorten(store.description)})"
    if not command.flags["yes"]:
        if not sys.stdin.isatty():
            raise ConfigError(
                "C01",
                f"data remove would delete {about}, but cannot ask for confirmation: "
                "stdin is not a terminal.",
                "--yes deletes it without confirmation",
            )
        print(printable(f"This deletes {about}."), file=sys.stderr)
        print("Delete it? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print("Nothing was deleted.", file=sys.stderr)
            return 1
    remove_store(store)
    if command.flags["json"]:
        _print_json(store)
    else:
        _show(f"deleted {about}")
    return 0


def _import_av_mnist(command: ParsedCommand) -> None:
    """Imports a folder of raw files and prints a summary."""
    from mmfusion_jax.data.datasets.av_mnist.build_store import build_or_open

    stores = build_or_open(command.positional)
    line = f"python -m mmfusion_jax.main --config={AV_MNIST_CONFIG}"
    _print_av_mnist(command, command.positional, commands=[line])
    if not command.flags["json"]:
        _print_imported(stores.folder, stores.reused)
        _show(f"train:  {line}")


def _print_imported(folder: str | Path, already_imported: bool) -> None:
    what = "already imported:" if already_imported else "imported:"
    _show(f"{what} {folder}")


def _print_json(value: Any) -> None:
    """Prints dataclasses, or a dict of them, as JSON."""
    from mmfusion_jax.results.json_file import dumps

    print(dumps(value))


def _show(text: str) -> None:
    """Prints a text, which can contain paths and names of files."""
    print(printable(text))


def _print_av_mnist(command: ParsedCommand, folder: str = "", **fields: Any) -> None:
    """Prints a summary of AV-MNIST after reading all its audio.

    Args:
        command: The command.
        folder: Folder of the raw files; "" for the import.
        fields: Further fields of the JSON object.
    """
    from mmfusion_jax.data.datasets.av_mnist.dataset import (
        format_summary,
        load_av_mnist,
        summarize,
    )

    found = summarize(load_av_mnist(folder))
    if command.flags["json"]:
        _print_json({**vars(found), **fields})
    else:
        _show(format_summary(found))


def _check_file(command: ParsedCommand) -> "FileSummary":
    """Returns the statistics of a file."""
    from mmfusion_jax.data.feature_files.summary import FileSummary

    path = local_path("the argument", command.positional)
    arguments = {"file": str(path), "name": command.flags["dataset"]}
    return _run_sandboxed("summarize_file", arguments, FileSummary, path, command)


def _check_import(command: ParsedCommand) -> "FileSummary":
    """Returns the statistics of an import, after reading every example."""
    from mmfusion_jax.data.datasets.sentiment_files import check_imported

    return check_imported(command.positional, command.flags["file"])


def _run_sandboxed(
    function: str,
    arguments: Mapping[str, Any],
    result_type: type[T],
    path: Path,
    command: ParsedCommand,
) -> T:
    """Runs a function of `importer.py` on a file in the sandbox."""
    from mmfusion_jax.data.feature_files.reader import list_files
    from mmfusion_jax.safe_load.sandbox import memory_for, run_sandboxed

    largest = max(list_files(path), key=lambda file: file.stat().st_size)
    seconds = command.flags["max_cpu_seconds"]
    seconds = seconds or 300 + largest.stat().st_size // 1_000_000
    # With --json, stdout is one JSON object.
    with contextlib.redirect_stdout(sys.stderr):
        return run_sandboxed(
            f"mmfusion_jax.data.feature_files.importer:{function}",
            arguments,
            result_type,
            memory_gb=command.flags["max_memory_gb"] or memory_for(largest),
            cpu_seconds=seconds,
            timeout=command.flags["timeout"] or 2 * seconds,
            subject=str(path),
        )


COMMANDS = {
    "import": Command(
        "mmfusion_jax data import",
        "Imports a feature file, or a folder of the raw files of av_mnist.",
        import_command,
        (
            Flag("dataset", "", "dataset of the file (required)", (*NAMES, AV_MNIST)),
            Flag("nan_to_zero", False, "replace NaN and infinite values by 0"),
            Flag("drop_bad", False, "leave out examples that cannot be used"),
            Flag("equal_clips", False, "accept equal examples in two splits"),
            *LIMITS,
        ),
        needs_config=False,
        positional="FILE",
    ),
    "check": Command(
        "mmfusion_jax data check",
        "Checks a file, an import or clips. Exits with 1 if problems are found.",
        check_command,
        (
            Flag("dataset", "", "the dataset, if a FILE is checked", ("", *NAMES)),
            Flag("file", "", "which import of the dataset, if there are several"),
            Flag("labels", "", "labels file of a FOLDER (default: labels.csv in it)"),
            Flag("speaker_column", "speaker", "its column with the speakers"),
            Flag("workers", -1, "decoding processes (default: one per core)"),
            *LIMITS,
        ),
        needs_config=False,
        positional="NAME|FILE|FOLDER",
    ),
    "init": Command(
        "mmfusion_jax data init",
        "Writes a labels.csv to fill in, with a row for every clip of a folder.",
        clip_folders.init_command,
        (Flag("label_from_folder", False, "the folder of a clip is its label"),),
        needs_config=False,
        positional="FOLDER",
    ),
    "list": Command(
        "mmfusion_jax data list",
        "Lists the imports and other prepared data in the cache: size, source, date.",
        list_command,
        needs_config=False,
    ),
    "remove": Command(
        "mmfusion_jax data remove",
        "Deletes an import or other prepared data from the cache.",
        remove_command,
        (Flag("yes", False, "delete without confirmation"),),
        needs_config=False,
        positional="NAME",
    ),
}

if __name__ == "__main__":
    sys.exit(
        run_subcommand(
            "mmfusion_jax data", "Imports, checks, lists and removes data.", COMMANDS
        )
    )
