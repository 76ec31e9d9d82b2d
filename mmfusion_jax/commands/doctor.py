"""Checks this environment: versions, devices, disk, cache, and a self-test.

python -m mmfusion_jax doctor
"""

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mmfusion_jax.cli.command import Command
from mmfusion_jax.cli.flags import Flag, ParsedCommand
from mmfusion_jax.data.storage.file_size import format_size
from mmfusion_jax.errors import (
    MissingDependencyError,
    UserError,
    describe_exception,
    join_names,
    printable,
    shorten,
    shown_name,
)

if TYPE_CHECKING:  # slow to import, and needed only once the flags are valid
    from mmfusion_jax.runner.self_test import SelfTest

DISTRIBUTION = "mmfusion_jax"
PACKAGES = (
    "mmfusion_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy",
    "grain", "tensorflow-datasets", "array_record", "scipy", "scikit-learn",
)  # fmt: skip
DEVELOPMENT = ("dev", "notebooks", "parity")
"""Extras for work on the library."""

ACCELERATORS = ("cuda12", "cuda13", "tpu")
"""Extras of accelerators: the lines on devices name the one that is missing."""

MIN_FREE = 1_000_000_000
"""Bytes of free disk or memory below which there is a warning."""


@dataclasses.dataclass(frozen=True)
class Extra:
    """An extra of this package.

    Attributes:
        missing: Its distributions that are not installed.
        command: Command that installs it; "" if nothing is missing.
    """

    missing: list[str]
    command: str


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder that trainings write to.

    Attributes:
        path: The folder, which need not exist yet.
        writable: Whether a file can be written to it.
        free_bytes: Free space of its disk.
        bytes: Size of its files; 0 for a folder whose size was not computed.
    """

    path: str
    writable: bool
    free_bytes: int
    bytes: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examination:
    """State of an environment.

    Attributes:
        python: Version of Python.
        system: Operating system and machine.
        versions: Distribution -> version; "" if it is not installed.
        extras: Extra -> what is missing.
        device: The devices in words; "" if JAX cannot use them.
        cache: Folder of prepared data and compiled programs.
        temporary: Folder of temporary files.
        current: The current folder, in which `runs` is created.
        datasets: Number of datasets in the cache.
        free_memory_bytes: Memory that is available; None if it is unknown.
        self_test: Result of the self-test; None if it failed or was left out.
        warnings: What may cause problems.
        problems: What must be fixed, with a fix each.
    """

    python: str
    system: str
    versions: dict[str, str]
    extras: dict[str, Extra]
    device: str
    cache: Folder
    temporary: Folder
    current: Folder
    datasets: int
    free_memory_bytes: int | None
    self_test: "SelfTest | None"
    warnings: list[str]
    problems: list[str]


def doctor_command(command: ParsedCommand) -> int:
    """Prints the state of the environment; returns 2 if there is a problem."""
    from mmfusion_jax.results.json_file import dumps

    # With --json, stdout is one JSON object.
    with contextlib.redirect_stdout(sys.stderr):
        found = examine(self_test=not command.flags["no_self_test"])
    if command.flags["json"]:
        print(dumps(found))
    else:
        print(printable("\n".join(report_lines(found))))
    return MissingDependencyError.exit_code if found.problems else 0


def examine(*, self_test: bool = True) -> Examination:
    """Returns the state of this environment.

    Args:
        self_test: Also run the self-test.
    """
    from mmfusion_jax.data.cache import list_stores
    from mmfusion_jax.data.storage.array_record_store import cache_folder

    devices, problems = _devices()
    cache = _folder(cache_folder(""), sized=True)
    temporary, current = _folder(_temporary()), _folder(Path.cwd())
    memory = _free_memory()
    problems += _folder_problems(cache, temporary)
    tested = None
    if self_test:
        tested, more = _self_test()
        problems += more
    return Examination(
        python=platform.python_version(),
        system=" ".join((platform.system(), platform.machine())),
        versions={name: _version(name) for name in PACKAGES},
        extras=_extras(),
        device=devices[0].removeprefix("device: ") if devices else "",
        cache=cache,
        temporary=temporary,
        current=current,
        datasets=len(list_stores()) if Path(cache.path).is_dir() else 0,
        free_memory_bytes=memory,
        self_test=tested,
        warnings=[
            *(line.removeprefix("warning: ") for line in devices[1:]),
            *_space_warnings((cache, temporary, current), memory),
        ],
        problems=problems,
    )


def report_lines(found: Examination) -> Iterator[str]:
    """Yields the lines of a report."""
    yield f"python {shown_name(found.python)} on {shown_name(found.system)}"
    versions = [f"{k} {shown_name(v or 'missing')}" for k, v in found.versions.items()]
    yield f"packages: {join_names(versions)}"
    for name, extra in found.extras.items():
        what = f"missing {join_names(extra.missing)}; {shorten(extra.command)}"
        what = what if extra.missing else "installed"
        yield f"extra {shown_name(name)}: {what}"
    if found.device:
        yield f"device: {shorten(found.device)}"
    suffix = "" if found.datasets == 1 else "s"
    yield (
        f"cache: {shorten(found.cache.path)}, {format_size(found.cache.bytes)}, "
        f"{found.datasets:d} dataset{suffix}, {format_size(found.cache.free_bytes)} "
        "free"
    )
    for name, folder in (
        ("temporary files", found.temporary),
        ("current folder", found.current),
    ):
        suffix = "" if folder.writable else ", read-only"
        yield (
            f"{shown_name(name)}: {shorten(folder.path)}, "
            f"{format_size(folder.free_bytes)} free{suffix}"
        )
    if found.free_memory_bytes is not None:
        yield f"memory: {format_size(found.free_memory_bytes)} available"
    if test := found.self_test:
        yield from _self_test_lines(test)
    for line in found.warnings:
        yield f"warning: {shorten(line, 600)}"
    for problem in found.problems:
        yield from problem.split("\n")
    count = len(found.problems)
    yield f"problems: {count:d}" if count else "no problems found"


def _self_test_lines(test: "SelfTest") -> Iterator[str]:
    """Yields the lines on a self-test that has passed."""
    yield (
        f"self-test: a training of {test.steps:d} steps on the CPU was killed after "
        f"step {test.killed_after:d} and resumed: {test.arrays:d} arrays, metrics and "
        f"predictions equal those of one that was not, bit for bit ({test.seconds:.1f} "
        "s)"
    )
    if test.network_attempts:
        yield (
            f"network: refused to the self-test, which tried {test.network_attempts:d} "
            "connections from Python and did not need them"
        )
    else:
        yield "network: refused to the self-test, which did not use it from Python"


def _devices() -> tuple[list[str], list[str]]:
    """Returns the lines of `device_lines`, and the problems."""
    try:
        from mmfusion_jax.training.accelerators import device_lines

        return device_lines(), []
    except MissingDependencyError as error:
        return [], [str(error)]
    except ImportError as error:
        return [], [_broken_install(error)]


def _self_test() -> tuple["SelfTest | None", list[str]]:
    """Returns the result of the self-test, and the problems."""
    try:
        from mmfusion_jax.runner.self_test import run_self_test

        with tempfile.TemporaryDirectory(
            prefix="mmfusion_jax_", ignore_cleanup_errors=True
        ) as folder:
            return run_self_test(Path(folder)), []
    except UserError as error:
        return None, [str(error)]
    except ImportError as error:
        return None, [_broken_install(error)]
    except OSError as error:  # such as a disk that is full or not writable
        failed = MissingDependencyError(
            "E08",
            f"self-test: {shorten(error)}.",
            "set TMPDIR to a folder that can be written to",
        )
        return None, [str(failed)]


def _broken_install(error: ImportError) -> str:
    """Returns the problem of a library that cannot be imported."""
    failed = MissingDependencyError(
        "E01",
        f"the installation is not complete: {describe_exception(error)}.",
        f"pip install --force-reinstall {DISTRIBUTION}",
    )
    return str(failed)


def _version(name: str) -> str:
    """Returns the version of a distribution; "" if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _extras() -> dict[str, Extra]:
    """Returns what is missing of every extra; empty if the package is not installed."""
    try:
        required = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    missing: dict[str, list[str]] = {}
    for line in required:
        extra = re.search(r"extra *== *['\"]([\w-]+)['\"]", line)
        name = re.match(r"[\w.-]+", line)
        if extra and name and extra[1] not in (*DEVELOPMENT, *ACCELERATORS):
            found = missing.setdefault(extra[1], [])
            found += [] if _version(name[0]) else [name[0]]
    return {
        extra: Extra(names, f'pip install "{DISTRIBUTION}[{extra}]"' if names else "")
        for extra, names in sorted(missing.items())
    }


def _temporary() -> Path:
    """Returns the folder of temporary files."""
    try:
        return Path(tempfile.gettempdir())
    except OSError:  # none of the usual folders can be written to
        return Path(os.environ.get("TMPDIR") or Path.cwd())


def _folder(path: Path, *, sized: bool = False) -> Folder:
    """Returns whether a folder can be used; the size of its files if `sized`."""
    existing = next(one for one in (path, *path.absolute().parents) if one.exists())
    try:
        free = shutil.disk_usage(existing).free
    except OSError:
        free = 0
    size = sum(_file_sizes(path)) if sized else 0
    return Folder(str(path), _is_writable(existing), free, size)


def _is_writable(folder: Path) -> bool:
    """Returns whether a file can be written to a folder, by writing one."""
    # Permissions alone do not tell of a file system that is read-only, or full.
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0" * 4096)
    except OSError:
        return False
    return True


def _file_sizes(folder: Path) -> Iterator[int]:
    """Yields the size of every file of a folder."""
    for parent, _, names in os.walk(folder):
        for name in names:
            # Another process may delete it meanwhile.
            with contextlib.suppress(OSError):
                yield os.lstat(os.path.join(parent, name)).st_size


def _free_memory() -> int | None:
    """Returns the memory that is available in bytes, on Linux."""
    try:
        text = Path("/proc/meminfo").read_text("utf-8")
    except OSError:
        return None
    match = re.search(r"MemAvailable: *(\d+) kB", text)
    return int(match[1]) * 1024 if match else None


def _folder_problems(cache: Folder, temporary: Folder) -> list[str]:
    """Returns the problems of folders that must be writable."""
    made = [
        MissingDependencyError(
            "E03",
            f"the cache {shorten(cache.path)} cannot be written to.",
            "set MMFUSION_CACHE to a folder that can be written to",
        ),
        MissingDependencyError(
            "E03",
            f"the folder of temporary files {shorten(temporary.path)} "
            "cannot be written to.",
            "set TMPDIR to a folder that can be written to",
        ),
    ]
    folders = (cache, temporary)
    return [str(e) for e, one in zip(made, folders, strict=True) if not one.writable]


def _space_warnings(folders: tuple[Folder, ...], memory: int | None) -> Iterator[str]:
    """Yields a warning for every disk, and the memory, that has little space left."""
    for folder in folders:
        if folder.free_bytes < MIN_FREE:
            yield (
                f"only {format_size(folder.free_bytes)} free on the disk of "
                f"{shorten(folder.path)}"
            )
    if memory is not None and memory < MIN_FREE:
        yield f"only {format_size(memory)} of memory available"


COMMAND = Command(
    "mmfusion_jax doctor",
    "Checks this environment: versions, devices, disk, cache, and a self-test.",
    doctor_command,
    (Flag("no_self_test", False, "leave the self-test out"),),
    needs_config=False,
)
