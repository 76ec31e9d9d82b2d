"""What a user can do wrong, and how we say it: one shape, one exit code each.

An error is one to four lines: what is wrong and where, then what would work. Every
exception here ends a command with its own exit code; any other exception is a bug.
"""

import difflib
from collections.abc import Iterable
from typing import ClassVar


class UserError(Exception):
    """Something outside the library is wrong, and the user can mend it.

    Attributes:
        code: a letter for the kind and two digits, such as "D07"; `docs/errors.md`
            lists them all.
        fix: what would work, in a few words; "" if there is nothing to add.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, code: str, message: str, fix: str = ""):
        super().__init__(message)
        self.code = code
        self.fix = fix

    def __str__(self) -> str:
        lines = [f"error[{self.code}] {self.args[0]}"]
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class ConfigError(UserError, ValueError):
    """C: a flag, a config file, a key or a choice."""

    exit_code = 2


class MissingDependencyError(UserError):
    """E: something of the environment is missing, such as an optional extra."""

    exit_code = 2


class DataError(UserError):
    """D: a file, a label, a split."""

    exit_code = 3


class WeightsError(UserError):
    """W: a file of pretrained weights."""

    exit_code = 3


class DivergedError(UserError):
    """N: the numbers are not finite any more."""

    exit_code = 4


class CheckpointError(UserError):
    """K: no usable checkpoint."""

    exit_code = 5


class Interrupted(Exception):
    """The user or the system asked us to stop; everything is saved.

    Attributes:
        step: the step that was saved.
        exit_code: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, step: int, exit_code: int):
        super().__init__(f"saved step {step}; run the same command to resume")
        self.step = step
        self.exit_code = exit_code


def suggest(word: str, known: Iterable[str]) -> str:
    """A hint such as "did you mean 'audio'?", or what is known if nothing is near."""
    names = sorted(known)
    if close := difflib.get_close_matches(word, names, n=1, cutoff=0.5):
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}"


def missing_dependency(module: str, extra: str, what: str) -> MissingDependencyError:
    """The error for a missing optional library.

    Args:
        module: the module that could not be imported.
        extra: the extra of this package that brings it.
        what: what it is needed for, in the user's words.
    """
    return MissingDependencyError(
        "E01",
        f"{what} needs {module}, which is not installed.",
        f'pip install "mmfusion_jax[{extra}]"',
    )
