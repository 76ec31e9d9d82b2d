"""The frame of every command: flags in, an exit code out, mistakes in a few lines.

Nothing here imports JAX: `--help` and mistakes are answered at once.
"""

import dataclasses
import errno
import os
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from absl import flags as absl_flags
from absl import logging as absl_logging

from mmfusion_jax.cli.flags import Flag, ParsedCommand, parse
from mmfusion_jax.config.load import as_json, flatten, format_value, list_configs
from mmfusion_jax.errors import ConfigError, Interrupted, UserError, suggest

# What the system refuses although the library did nothing wrong.
SYSTEM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)

COMMON = (
    Flag("workdir", "", "folder of the run (default: runs/NAME_OF_THE_CONFIG)"),
    Flag("json", False, "print one JSON object on stdout"),
    Flag("debug", False, "show the traceback of an error on the screen too"),
)
LOG = Flag("workdir", "", "folder of run.log, which keeps errors (default: runs)")
HELP = frozenset({"--help", "-help", "-h", "--helpfull"})
PRINT_CONFIG = Flag("print_config", False, "print every field of the config, and stop")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: `python -m NAME`.

    Attributes:
        name: of the module.
        help: what it does, in a few lines.
        main: does it; what it returns, if anything, is the exit code.
        flags: its own, beside those of every command.
        needs_config: it works on a config.
        positional: what the word is that it takes beside flags, such as "FILE"; "" if
            it takes none.
    """

    name: str
    help: str
    main: Callable[[ParsedCommand], int | None]
    flags: tuple[Flag, ...] = ()
    needs_config: bool = True
    positional: str = ""

    @property
    def all_flags(self) -> tuple[Flag, ...]:
        """Its own flags and the common ones."""
        common = (*COMMON, PRINT_CONFIG) if self.needs_config else (LOG, *COMMON[1:])
        return (*self.flags, *common)


def run_command(command: Command, args: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    Args:
        command: what to run.
        args: those after the name of the program; None for the process's own.
    """
    try:
        code = _run(command, sys.argv[1:] if args is None else args)
        sys.stdout.flush()
    except BrokenPipeError:  # what reads the output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _run(command: Command, words: Sequence[str]) -> int:
    absl_logging.set_verbosity(absl_logging.WARNING)
    if not HELP.isdisjoint(words):
        print(help_text(command))
        return 0
    try:
        request = parse(
            words, command.all_flags, command.needs_config, command.positional
        )
    except UserError as error:
        if "--debug" in words:
            traceback.print_exc()
        print(error, file=sys.stderr)
        return error.exit_code
    for note in request.notes:
        print(note, file=sys.stderr)
    if request.flags.get("print_config"):
        print(config_text(request))
        return 0
    if not absl_flags.FLAGS.is_parsed():
        absl_flags.FLAGS.mark_as_parsed()  # workers of grain ask for it
    code = _run_and_report(command.main, request)
    if code and _num_processes(request) > 1:
        # A normal exit would wait for processes that wait for this one.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def run_subcommand(
    name: str,
    help: str,
    commands: Mapping[str, Command],
    args: Sequence[str] | None = None,
) -> int:
    """Runs the command that the first word names, and returns its exit code.

    Args:
        name: of the module.
        help: what the commands do, in a line.
        commands: by the word that names each.
        args: those after the name of the program; None for the process's own.
    """
    args = sys.argv[1:] if args is None else args
    if args and args[0] in commands:
        return run_command(commands[args[0]], args[1:])
    if not args or not HELP.isdisjoint(args):
        lines = [help, "", "usage:"]
        for one in commands.values():
            lines += [f"  {_usage_line(one)}", f"      {one.help}"]
        print("\n".join([*lines, "", f"  python -m {name} COMMAND --help lists flags"]))
        return 0 if args else ConfigError.exit_code
    error = ConfigError(
        "C01", f"{args[0]!r} is no command of {name}.", suggest(args[0], commands)
    )
    print(error, file=sys.stderr)
    return error.exit_code


def help_text(command: Command) -> str:
    """What `--help` prints."""
    use = _usage_line(command)
    lines = [command.help, "", "usage:"]
    known = list_configs() if command.needs_config else []
    if command.needs_config:
        use = f"{use} --config={known[0] if known else 'FILE.py'}"
        lines += [
            f"  {use} [--config.FIELD=VALUE ...] [flags]",
            f"  {use} --print_config",
            "",
            "flags:",
            _help_line("--config=FILE.py[:WORD]", "the config; WORD chooses a variant"),
        ]
    else:
        lines += [f"  {use} [flags]", "", "flags:"]
    lines += [_help_line(_flag_usage(flag), flag.help) for flag in command.all_flags]
    if known:
        lines += ["", "configs:", *(f"  {path}" for path in known)]
    return "\n".join(lines)


def _help_line(word: str, about: str) -> str:
    """A word and what it does, below the word where that is too long."""
    gap = "\n" + " " * 34 if len(word) > 31 else " " * (32 - len(word))
    return f"  {word}{gap}{about}"


def _usage_line(command: Command) -> str:
    """How a command is called."""
    return " ".join(filter(None, ("python -m", command.name, command.positional)))


def config_text(request: ParsedCommand) -> str:
    """The config: one field a line, as a flag that could be given, or as JSON."""
    if request.flags["json"]:
        return as_json(request.config)
    lines = [
        f"# --config.{name} is not set"
        if value is None
        else f"--config.{name}={shlex.quote(format_value(value))}"
        for name, value in flatten(request.config).items()
    ]
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
    """Runs `main`; an exception becomes lines on stderr and an exit code."""
    try:
        return main(request) or 0
    except Interrupted as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; run the same command to go on", file=sys.stderr)
        return 130
    except UserError as error:
        _write_log(request)
        print(error, file=sys.stderr)
        return error.exit_code
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _stdout_is_closed():
            raise
        path = _write_log(request)
        if isinstance(error, OSError) and error.errno in SYSTEM_ERRORS:
            print(f"error[E03] the system refused: {error}", file=sys.stderr)
            return 2
        first = (str(error).splitlines() or [""])[0][:200]
        print(
            f"error[B00] bug: {type(error).__name__}: {first}\n"
            f"  please report it with its traceback, which is in {path}",
            file=sys.stderr,
        )
        return 1


def _stdout_is_closed() -> bool:
    """Whether it is our output that nobody reads, and not a pipe to a worker."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return True
    return False


def _write_log(request: ParsedCommand) -> Path:
    """Writes the traceback at hand to run.log, and shows it if asked; the log."""
    text = traceback.format_exc()
    if request.flags["debug"]:
        print(text, file=sys.stderr)
    entry = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(sys.argv)}\n{text}\n"
    for folder in (request.workdir, Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "run.log").open("a", encoding="utf-8") as log:
                log.write(entry)
        except OSError:
            continue
        return folder / "run.log"
    return Path(os.devnull)


def _num_processes(request: ParsedCommand) -> int:
    """Number of processes of this run."""
    return flatten(request.config).get("distributed.num_processes", 1)
