"""Runs the properties of a part, and reports all that do not hold."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmfusion_jax.errors import describe_exception, shown_name


class CounterexampleError(Exception):
    """A property does not hold; the text completes the sentence "<part>: ..."."""


class NotCheckedError(Exception):
    """A property cannot be checked; the text is the reason."""


@dataclasses.dataclass(frozen=True)
class Report:
    """The properties that were checked, and those that were not.

    Example:
        >>> import mmfusion_jax as mmf
        >>> held = ("parameters", "masked values")
        >>> reasons = {"bfloat16": "it does not have the option dtype"}
        >>> print(mmf.testing.Report("MyGate", held, reasons))
        MyGate: 2 properties hold
          parameters
          masked values
        not checked:
          bfloat16: it does not have the option dtype

    Attributes:
        part: Name of the part.
        checked: Properties that hold.
        not_checked: Property -> reason.
    """

    part: str
    checked: tuple[str, ...]
    not_checked: Mapping[str, str]

    def __str__(self) -> str:
        count = len(self.checked)
        what = "property holds" if count == 1 else "properties hold"
        lines = [f"{shown_name(self.part)}: {count} {what}"]
        lines += [f"  {shown_name(title)}" for title in self.checked]
        if self.not_checked:
            lines.append("not checked:")
        lines += [
            f"  {shown_name(title)}: {reason}"
            for title, reason in self.not_checked.items()
        ]
        return "\n".join(lines)


def run_properties(
    part: str, case: Any, properties: Sequence[Callable[[Any], None]]
) -> Report:
    """Runs all properties on a part.

    Args:
        part: Name of the part.
        case: The part with its inputs, the argument of every property.
        properties: Functions that raise `CounterexampleError` or `NotCheckedError`, or
            anything that the part raises. If the first does not hold, the others do not
            run.

    Returns:
        The report, if all hold.

    Raises:
        AssertionError: Some do not hold; one sentence for each.
    """
    checked, not_checked, failures = [], {}, []
    for check in properties:
        title = check.__name__.replace("_", " ")
        try:
            check(case)
        except NotCheckedError as reason:
            not_checked[title] = str(reason)
        except CounterexampleError as error:
            problem = str(error)
            failures.append(f"{shown_name(part)}: {problem}")
        except Exception as error:  # a part may raise anything
            problem = describe_exception(error)
            failures.append(f"{shown_name(part)}: {title} raises {problem}")
        else:
            checked.append(title)
        if failures and check.__name__ == properties[0].__name__:
            break
    if failures:
        raise AssertionError("\n".join(failures))
    return Report(part, tuple(checked), not_checked)
