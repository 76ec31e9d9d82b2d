"""Imports files of features, and examines them.

python -m mmfusion_jax data import FILE --as=mosi
python -m mmfusion_jax data import FOLDER --as=av_mnist
python -m mmfusion_jax data doctor mosi
"""

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmfusion_jax.cli.command import Command, run_subcommand
from mmfusion_jax.cli.flags import Flag, ParsedCommand
from mmfusion_jax.config.registry import choices

NAMES = choices("imported data set")
PARTS = "av_mnist"
"""A data set that is put together from the parts in a folder."""

PARTS_CONFIG = "configs/hetero_fusion_net.py:av_mnist"
LIMITS = (
    Flag("memory_gb", 0.0, "memory it may take (default: 4 times the file)"),
    Flag("cpu_seconds", 0, "time of the processor it may take (default: by size)"),
    Flag("timeout", 0, "seconds it may take (default: twice that)"),
)


def import_command(request: ParsedCommand) -> None:
    """Imports a file, or a folder of parts, and says what came of it."""
    if request.flags["as"] == PARTS:
        _build_from_parts(request)
        return
    # Slow, and needed only once the request is known to be sound.
    from mmfusion_jax.data.datasets.sentiment_files import list_imports
    from mmfusion_jax.data.feature_files.importer import FOLDER, find_problems
    from mmfusion_jax.data.feature_files.known_datasets import FEATURE_DATASETS
    from mmfusion_jax.data.feature_files.summary import header_lines, table_lines
    from mmfusion_jax.data.storage.array_record_store import cache_folder

    name, path = request.flags["as"], Path(request.positional).expanduser()
    arguments = {
        "file": str(path),
        "name": name,
        "parent": str(cache_folder(FOLDER) / name),
        "repair": request.flags["repair"],
    }
    found = _sandboxed("import_file", arguments, path, request)
    if request.flags["json"]:
        print(json.dumps(found, indent=1))
        return
    wrong, remarks = find_problems(found)
    print("\n".join([*header_lines(found), *table_lines(found)]))
    for word, told in (("problem", wrong), ("remark", remarks)):
        for line in told:
            print(f"  {word}: {line}")
    print("already imported:" if found["there"] else "imported:", found["folder"])
    # Which one has to be said where there are several.
    which = Path(found["folder"]).name if len(list_imports(name)) > 1 else ""
    train = f" --config.data.file={which}" if which else ""
    look = f" --file={which}" if which else ""
    config = FEATURE_DATASETS[name].config
    print(f"train:  python -m mmfusion_jax.main --config={config}{train}")
    print(f"look:   python -m mmfusion_jax data doctor {name}{look}")


def check_command(request: ParsedCommand) -> int:
    """Prints what is in a file, or in what was imported; 1 if something is wrong."""
    if request.positional == PARTS:
        _show_parts(request)
        return 0
    from mmfusion_jax.commands import check_features
    from mmfusion_jax.data.feature_files.importer import find_problems

    found = (
        _check_imported(request)
        if request.positional in NAMES
        else _check_file(request)
    )
    print(
        json.dumps(found, indent=1)
        if request.flags["json"]
        else check_features.format_report(found)
    )
    return int(bool(find_problems(found)[0]))


def _build_from_parts(request: ParsedCommand) -> None:
    """Imports the parts in a folder and says what came of it."""
    from mmfusion_jax.data.datasets.av_mnist.build_store import build_or_open

    made = build_or_open(request.positional)
    _show_parts(request, request.positional)
    if not request.flags["json"]:
        print("already imported:" if made.reused else "imported:", made.folder)
        print("train:  python -m mmfusion_jax.main --config=" + PARTS_CONFIG)


def _show_parts(request: ParsedCommand, folder: str = "") -> None:
    """Prints what came of parts, all sounds of which are read."""
    from mmfusion_jax.data.datasets.av_mnist.dataset import (
        format_summary,
        load_av_mnist,
        summarize,
    )

    found = summarize(load_av_mnist(folder))
    print(
        json.dumps(found, indent=1) if request.flags["json"] else format_summary(found)
    )


def _check_file(request: ParsedCommand) -> Mapping[str, Any]:
    """What is in a file."""
    path = Path(request.positional).expanduser()
    arguments = {"file": str(path), "name": request.flags["as"]}
    return _sandboxed("examine", arguments, path, request)


def _check_imported(request: ParsedCommand) -> Mapping[str, Any]:
    """What is in an import, every example of which is read."""
    from mmfusion_jax.data.datasets.sentiment_files import check_imported

    return check_imported(request.positional, request.flags["file"])


def _sandboxed(
    function: str, arguments: Mapping[str, Any], path: Path, request: ParsedCommand
) -> Mapping[str, Any]:
    """Has a function of `import_file.py` work on a file, within limits."""
    from mmfusion_jax.data.feature_files.reader import list_files
    from mmfusion_jax.safe_load.sandbox import memory_for, run_sandboxed

    largest = max(list_files(path), key=lambda file: file.stat().st_size)
    seconds = request.flags["cpu_seconds"]
    seconds = seconds or 300 + largest.stat().st_size // 1_000_000
    with contextlib.redirect_stdout(sys.stderr):
        return run_sandboxed(
            f"mmfusion_jax.data.feature_files.importer:{function}",
            arguments,
            memory_gb=request.flags["memory_gb"] or memory_for(largest),
            cpu_seconds=seconds,
            timeout=request.flags["timeout"] or 2 * seconds,
            subject=str(path),
        )


COMMANDS = {
    "import": Command(
        "mmfusion_jax data import",
        "Reads a file of features, or the parts of av_mnist, and keeps a data set.",
        import_command,
        (
            Flag("as", "", "the data set that it is", (*NAMES, PARTS)),
            Flag("repair", False, "write 0 for NaN and infinite values"),
            *LIMITS,
        ),
        needs_config=False,
        positional="FILE",
    ),
    "doctor": Command(
        "mmfusion_jax data doctor",
        "Examines a file, or a data set that was imported; exit code 1 if it is ill.",
        check_command,
        (
            Flag("as", "", "the data set that a file is", ("", *NAMES)),
            Flag("file", "", "which import of a data set, if there are several"),
            *LIMITS,
        ),
        needs_config=False,
        positional="NAME|FILE",
    ),
}

if __name__ == "__main__":
    sys.exit(
        run_subcommand(
            "mmfusion_jax data", "Imports and examines files of features.", COMMANDS
        )
    )
