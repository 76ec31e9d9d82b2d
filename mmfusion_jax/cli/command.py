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

from mmfusion_jax.cli.flags import Flag, Request, parse
from mmfusion_jax.config.load import as_json, as_word, fields, list_configs
from mmfusion_jax.errors import ConfigError, Interrupted, UserError, nearest

# What the system refuses although the library did nothing wrong.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)

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
        about: what it does, in a few lines.
        main: does it; what it returns, if anything, is the exit code.
        flags: its own, beside those of every command.
        needs_config: it works on a config.
        operand: what the word is that it takes beside flags, such as "FILE"; "" if it
            takes none.
    """

    name: str
    about: str
    main: Callable[[Request], int | None]
    flags: tuple[Flag, ...] = ()
    needs_config: bool = True
    operand: str = ""

    @property
    def all_flags(self) -> tuple[Flag, ...]:
        """Its own flags and the common ones."""
        common = (*COMMON, PRINT_CONFIG) if self.needs_config else (LOG, *COMMON[1:])
        return (*self.flags, *common)


def run_command(command: Command, words: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    Args:
        command: what to run.
        words: those after the name of the program; None for the process's own.
    """
    try:
        code = _run(command, sys.argv[1:] if words is None else words)
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
        request = parse(words, command.all_flags, command.needs_config, command.operand)
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
    code = _guarded(command.main, request)
    if code and _processes(request) > 1:
        # A normal exit would wait for processes that wait for this one.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def run_subcommand(
    name: str,
    about: str,
    commands: Mapping[str, Command],
    words: Sequence[str] | None = None,
) -> int:
    """Runs the command that the first word names, and returns its exit code.

    Args:
        name: of the module.
        about: what the commands do, in a line.
        commands: by the word that names each.
        words: those after the name of the program; None for the process's own.
    """
    words = sys.argv[1:] if words is None else words
    if words and words[0] in commands:
        return run_command(commands[words[0]], words[1:])
    if not words or not HELP.isdisjoint(words):
        lines = [about, "", "usage:"]
        for one in commands.values():
            lines += [f"  {_call(one)}", f"      {one.about}"]
        print("\n".join([*lines, "", f"  python -m {name} COMMAND --help lists flags"]))
        return 0 if words else ConfigError.exit_code
    error = ConfigError(
        "C01", f"{words[0]!r} is no command of {name}.", nearest(words[0], commands)
    )
    print(error, file=sys.stderr)
    return error.exit_code


def help_text(command: Command) -> str:
    """What `--help` prints."""
    use = _call(command)
    lines = [command.about, "", "usage:"]
    known = list_configs() if command.needs_config else []
    if command.needs_config:
        use = f"{use} --config={known[0] if known else 'FILE.py'}"
        lines += [
            f"  {use} [--config.FIELD=VALUE ...] [flags]",
            f"  {use} --print_config",
            "",
            "flags:",
            _line("--config=FILE.py[:WORD]", "the config; WORD chooses a variant"),
        ]
    else:
        lines += [f"  {use} [flags]", "", "flags:"]
    lines += [_line(_usage(flag), flag.about) for flag in command.all_flags]
    if known:
        lines += ["", "configs:", *(f"  {path}" for path in known)]
    return "\n".join(lines)


def _line(word: str, about: str) -> str:
    """A word and what it does, below the word where that is too long."""
    gap = "\n" + " " * 34 if len(word) > 31 else " " * (32 - len(word))
    return f"  {word}{gap}{about}"


def _call(command: Command) -> str:
    """How a command is called."""
    return " ".join(filter(None, ("python -m", command.name, command.operand)))


def config_text(request: Request) -> str:
    """The config: one field a line, as a flag that could be given, or as JSON."""
    if request.flags["json"]:
        return as_json(request.config)
    lines = [
        f"# --config.{name} is not set"
        if value is None
        else f"--config.{name}={shlex.quote(as_word(value))}"
        for name, value in fields(request.config).items()
    ]
    return "\n".join(lines)


def _usage(flag: Flag) -> str:
    if isinstance(flag.default, bool):
        return f"--{flag.name}"
    if flag.choices:
        return f"--{flag.name}={'|'.join(filter(None, flag.choices))}"
    return f"--{flag.name}={flag.default or flag.name.upper()}"


def _guarded(main: Callable[[Request], int | None], request: Request) -> int:
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
        _log(request)
        print(error, file=sys.stderr)
        return error.exit_code
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _unread():
            raise
        path = _log(request)
        if isinstance(error, OSError) and error.errno in REFUSALS:
            print(f"error[E03] the system refused: {error}", file=sys.stderr)
            return 2
        first = (str(error).splitlines() or [""])[0][:200]
        print(
            f"error[B00] bug: {type(error).__name__}: {first}\n"
            f"  please report it with its traceback, which is in {path}",
            file=sys.stderr,
        )
        return 1


def _unread() -> bool:
    """Whether it is our output that nobody reads, and not a pipe to a worker."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return True
    return False


def _log(request: Request) -> Path:
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


def _processes(request: Request) -> int:
    """Number of processes of this run."""
    return fields(request.config).get("distributed.num_processes", 1)
