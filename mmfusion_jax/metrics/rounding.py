"""Scores as text, rounded in one way wherever they are shown."""

import decimal
import math


def rounded(value: float, digits: int = 3) -> str:
    """A number with `digits` decimals, half away from zero: 0.9075 is "0.908".

    The decimal digits that Python shows of a float are rounded, not its binary value,
    so that 0.9075 as a share and 90.75 in percent agree.

    Args:
        value: finite, or NaN, which is "not defined".
        digits: number of decimals, 0 or more.
    """
    if not math.isfinite(value):
        return "not defined" if math.isnan(value) else str(value)
    step = decimal.Decimal(1).scaleb(-digits)
    number = decimal.Decimal(repr(float(value))).quantize(step, "ROUND_HALF_UP")
    return str(number + 0)  # no minus before a zero


def percent(value: float, digits: int = 1) -> str:
    """A share in percent, without the sign: 0.9075 is "90.8"."""
    if not math.isfinite(value):
        return rounded(value)
    return rounded(float(decimal.Decimal(repr(float(value))) * 100), digits)
