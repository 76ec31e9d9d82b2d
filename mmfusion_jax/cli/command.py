"""Shared command-line entry point: flags, error messages, exit codes.

Does not import JAX, so that `--help` and mistakes are answered at once.
"""

import dataclasses
import errno
import os
import re
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from absl import flags as absl_flags
from absl import logging as absl_logging
from ml_collections import ConfigDict

from mmfusion_jax.cli.flags import Flag, ParsedCommand, parse
from mmfusion_jax.cli.traceback_text import bug_text, error_text, named_parts
from mmfusion_jax.config.base import FIELDS
from mmfusion_jax.config.load import as_json, flatten, format_value, list_configs
from mmfusion_jax.errors import (
    ConfigError,
    Interrupted,
    MissingDependencyError,
    UserError,
    describe_exception,
    printable,
    shorten,
    shown,
    shown_name,
    suggest,
)
from mmfusion_jax.user_code import find_origin, location

# Errors of the operating system that are not bugs of this library.
SYSTEM_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
)

OUT_OF_MEMORY = re.compile("RESOURCE_EXHAUSTED.*(memory|allocat)", re.IGNORECASE)

COMMON = (
    Flag("workdir", "", "output folder (default: runs/NAME_OF_THE_CONFIG)"),
    Flag("json", False, "print one JSON object on stdout"),
    Flag("debug", False, "print the traceback of an error"),
)
LOG = Flag("workdir", "", "folder of run.log, the error log (default: runs)")
HELP = frozenset({"--help", "-help", "-h", "--helpfull"})
PRINT_CONFIG = Flag("print_config", False, "print every field of the config and exit")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: `python -m NAME`.

    Attributes:
        name: Module, and subcommand if there is one: `python -m NAME`.
        help: Description, one sentence.
        main: Runs it; returns the exit code, or None for 0.
        flags: Its flags, besides those of every command.
        needs_config: True if it works on a config.
        positional: Name of its positional argument, such as "FILE", or, of several
            ones, "RUN ..."; "" for none.
        hidden: Flags that `--help` does not list.
    """

    name: str
    help: str
    main: Callable[[ParsedCommand], int | None]
    flags: tuple[Flag, ...] = ()
    needs_config: bool = True
    positional: str = ""
    hidden: frozenset[str] = frozenset()

    @property
    def all_flags(self) -> tuple[Flag, ...]:
        """All flags of the command, the common ones included."""
        common = (*COMMON, PRINT_CONFIG) if self.needs_config else (LOG, *COMMON[1:])
        return (*self.flags, *common)


def run_command(command: Command, args: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    Args:
        command: The command.
        args: The arguments of the program; None for those of the process.
    """
    try:
        code = _run(command, sys.argv[1:] if args is None else args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of stdout has closed it, as `head` does
        # Python flushes stdout once more when it exits, and would print the same error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _run(command: Command, words: Sequence[str]) -> int:
    absl_logging.set_verbosity(absl_logging.WARNING)
    if not HELP.isdisjoint(words):
        print(printable(help_text(command)))
        return 0
    _set_environment(words)
    try:
        request = parse(
            words, command.all_flags, command.needs_config, command.positional
        )
    except Exception as error:
        return _report_invalid(error, "--debug" in words)
    for note in request.notes:
        print(printable(note), file=sys.stderr)
    if request.flags.get("print_config"):
        print(printable(config_text(request)))
        return 0
    if not absl_flags.FLAGS.is_parsed():
        absl_flags.FLAGS.mark_as_parsed()  # Grain's workers check it
    code = _run_and_report(command.main, request)
    if code and _is_joined(request):
        # A normal exit would wait for processes that are waiting for this one.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _set_environment(words: Sequence[str]) -> None:
    """Sets what JAX and Flax read when they are imported: tracebacks and log level."""
    if "--debug" in words:
        # They hide their frames otherwise; they read this when they are imported.
        os.environ.setdefault("JAX_TRACEBACK_FILTERING", "off")
        os.environ.setdefault("FLAX_FILTER_FRAMES", "0")
    elif not any("config.distributed." in word for word in words):
        # XLA logs slow compilations, features of the machine and plugins without a
        # device as errors. Its real errors are exceptions, and fatal ones are printed
        # at every level; processes that wait for each other log why they end.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _report_invalid(error: Exception, debug: bool) -> int:
    """Prints why a command line is invalid; returns the exit code."""
    if isinstance(error, UserError):
        if debug:
            traceback.print_exc()
        print(printable(error_text(error)), file=sys.stderr)
        return error.exit_code
    empty = ParsedCommand(ConfigDict(), Path("runs"), {"debug": debug})
    return _report(error, empty)


def run_subcommand(
    name: str,
    help: str,
    commands: Mapping[str, Command],
    args: Sequence[str] | None = None,
) -> int:
    """Runs the command that the first word names, and returns its exit code.

    Args:
        name: Module and command, such as "mmfusion_jax data".
        help: Description of the subcommands, one sentence.
        commands: Name -> subcommand.
        args: The arguments of the program; None for those of the process.
    """
    args = sys.argv[1:] if args is None else args
    if args and args[0] in commands:
        return run_command(commands[args[0]], args[1:])
    if not args or not HELP.isdisjoint(args):
        lines = [help, "", "usage:"]
        for one in commands.values():
            lines += [f"  {_usage_line(one)}", f"      {one.help}"]
        lines += ["", f"  python -m {shown_name(name)} COMMAND --help lists flags"]
        print(printable("\n".join(lines)))
        return 0 if args else ConfigError.exit_code
    error = ConfigError(
        "C01",
        f"unknown command {shown(args[0])} of {shown_name(name)}.",
        suggest(args[0], commands),
    )
    print(error, file=sys.stderr)
    return error.exit_code


def help_text(command: Command) -> str:
    """Returns the text of `--help`."""
    usage = _usage_line(command)
    lines = [command.help, "", "usage:"]
    known = list_configs() if command.needs_config else []
    if command.needs_config:
        usage = f"{usage} --config={shorten(known[0]) if known else 'FILE.py'}"
        lines += [
            f"  {usage} [--config.FIELD=VALUE ...] [flags]",
            f"  {usage} --print_config",
            "",
            "flags:",
            _help_line("--config=FILE.py[:WORD]", "the config; WORD selects a variant"),
        ]
    else:
        lines += [f"  {usage} [flags]", "", "flags:"]
    listed = [flag for flag in command.all_flags if flag.name not in command.hidden]
    lines += [_help_line(_flag_usage(flag), flag.help) for flag in listed]
    if known:
        lines += ["", "configs:", *(f"  {path}" for path in known)]
    return "\n".join(lines)


def _help_line(usage: str, about: str) -> str:
    """Returns a flag and its description, on a new line if the flag is long."""
    line = f"  {usage}"
    return f"{line:34}{about}" if len(usage) <= 31 else f"{line}\n{'':34}{about}"


def _usage_line(command: Command) -> str:
    """Returns how a command is called."""
    return " ".join(filter(None, ("python -m", command.name, command.positional)))


def config_text(request: ParsedCommand) -> str:
    """Returns the config, a line for each field in the form of a flag, or as JSON."""
    if request.flags["json"]:
        return as_json(request.config)
    lines = []
    for name, value in flatten(request.config).items():
        line = f"--config.{name}={shlex.quote(format_value(value))}"
        if value is None:
            line = f"# --config.{shorten(name)} is not set"
        if name in FIELDS:
            line = f"{line}  # {FIELDS[name].description}"
        lines.append(line)
    return "\n".join(lines)


def _flag_usage(flag: Flag) -> str:
    if isinstance(flag.default, bool):
        return f"--{flag.name}"
    if flag.choices:
        return f"--{flag.name}={'|'.join(filter(None, flag.choices))}"
    return f"--{flag.name}={flag.default or flag.name.upper()}"


def _run_and_report(
    main: Callable[[ParsedCommand], int | None], request: ParsedCommand
) -> int:
    """Runs `main`; an exception is printed to stderr and gives an exit code."""
    try:
        return main(request) or 0
    except Interrupted as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted. Rerun the same command to resume.", file=sys.stderr)
        return 130
    except Exception as error:
        # The reader of stdout has seen enough; a broken pipe to a worker is an error.
        if isinstance(error, BrokenPipeError) and _stdout_is_closed():
            raise
        return _report(error, request)
    except SystemExit as error:
        # A part that calls `sys.exit` must not make a run look finished.
        if find_origin(error, named_parts(request.config).packages) is None:
            raise
        return _report(error, request)


def _report(error: BaseException, request: ParsedCommand) -> int:
    """Prints an exception to stderr, writes it to run.log, returns the exit code."""
    path = _write_log(request)
    if not isinstance(error, UserError):
        error = _as_user_error(error, request) or error
    if isinstance(error, UserError):
        print(printable(error_text(error, request.config)), file=sys.stderr)
        return error.exit_code
    print(printable(bug_text(error, request.config, path)), file=sys.stderr)
    return 1


def _as_user_error(error: BaseException, request: ParsedCommand) -> UserError | None:
    """Returns the error to show for an exception that is not a bug of this library.

    The exception is its cause.
    """
    origin = find_origin(error, named_parts(request.config).packages)
    reason = describe_exception(error)
    if in_use := _accelerator_in_use(error):
        in_use.__cause__ = error
        return in_use
    if isinstance(error, OSError) and _is_of_system(error, request.workdir):
        made = _system_error(error, request.workdir)
    # Orbax raises RESOURCE_EXHAUSTED for a full disk too.
    elif isinstance(error, MemoryError) or OUT_OF_MEMORY.search(reason):
        made = MissingDependencyError(
            "E05",
            f"not enough memory: {reason}",
            "a smaller --config.data.batch_size or smaller options of the model; "
            "--config.optim.gradient_accumulation_steps=2 splits a batch",
        )
    elif origin is not None:
        fix = (
            "correct this code, or the options in the config; --debug prints the "
            "entire traceback"
        )
        if origin.called_package:
            fix = "check the arguments of this call; if it is correct, please report it"
        line, reason = location(origin.frames[-1]), origin.reason
        made = ConfigError("C33", f"{line}: {reason}", fix)
    else:
        return None
    made.__cause__ = error
    return made


def _accelerator_in_use(error: BaseException) -> UserError | None:
    """Returns the error for a TPU that another process holds, in any command."""
    if not isinstance(error, RuntimeError) or "TPU" not in str(error).upper():
        return None
    from mmfusion_jax.training.accelerators import in_use_error  # slow: it needs JAX

    return in_use_error(str(error))


FIXES = {
    errno.ENOSPC: "free disk space",
    errno.EDQUOT: "free disk space",
    errno.ENAMETOOLONG: "use a shorter name",
}
"""Number of an error of the operating system -> its fix."""


def _system_error(error: OSError, workdir: Path) -> MissingDependencyError:
    """Returns the error for a file that cannot be read or written."""
    # An error of `write` does not name its file.
    path = error.filename or workdir
    where = shorten(os.fspath(path) if not isinstance(path, int) else workdir)
    reason = shorten(error.strerror or error)
    fix = FIXES.get(error.errno or 0, "make it readable and writable")
    return MissingDependencyError(
        "E03",
        f"operating system error: {reason}: {where}",
        f"{fix}, or use another --workdir; then rerun the same command",
    )


def _is_of_system(error: OSError, workdir: Path) -> bool:
    """Returns whether a disk, its permissions or a name of the workdir is the cause."""
    folders = map(str, (workdir, *workdir.parents))
    return error.errno in SYSTEM_ERRORS or str(error.filename) in folders


def _stdout_is_closed() -> bool:
    """Returns whether the closed pipe is stdout, not the pipe of a worker."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return True
    return False


def _write_log(request: ParsedCommand) -> Path:
    """Writes the current traceback to run.log, and to stderr with --debug."""
    text = traceback.format_exc()
    if request.flags["debug"]:
        print(printable(text), file=sys.stderr)
    command = printable(shlex.join(sys.argv))
    entry = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {command}\n{printable(text)}\n"
    path = request.workdir / "run.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as log:
            log.write(entry)
        return path
    except OSError:
        return _write_temporary_log(entry)


def _write_temporary_log(entry: str) -> Path:
    """Writes an entry to a new file in the temporary folder, which is also others'.

    Only the user can read it, and its name cannot be that of a link of somebody else.
    """
    try:
        handle, name = tempfile.mkstemp(prefix="mmfusion_jax_", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8") as log:
            log.write(entry)
    except OSError:
        return Path(os.devnull)
    return Path(name)


def _is_joined(request: ParsedCommand) -> bool:
    """Returns whether this process is one of several of the run."""
    values = flatten(request.config)
    return (
        values.get("distributed.num_processes", 1) > 1
        or values.get("distributed.mode") == "auto"
    )
