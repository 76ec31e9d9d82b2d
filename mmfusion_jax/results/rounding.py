"""Rounds numbers for display, the same way everywhere."""

import decimal
import math

# Enough digits for every float: the default of 28 refuses 1e25 with three decimals.
EXACT = decimal.Context(prec=400, rounding=decimal.ROUND_HALF_UP)


def format_number(value: float | None, digits: int = 3) -> str:
    """Returns a number with `digits` decimals, half away from zero: 0.9075 is "0.908".

    Its first 12 decimal digits are rounded, not its binary value, so that 0.9075 and
    90.75 % agree, and so do differences and means of such fractions.

    Args:
        value: A number; None and NaN are "not defined".
        digits: Number of decimals, 0 or more.
    """
    if value is None or math.isnan(value):
        return "not defined"
    if math.isinf(value):
        return str(value)
    # The binary value of 0.9075 is below it, so round would give 0.907.
    return _fixed(decimal.Decimal(f"{value:.12g}"), digits)


def format_percent(value: float, digits: int = 1) -> str:
    """Returns a fraction as a percentage, without the sign: 0.9075 is "90.8"."""
    if not math.isfinite(value):
        return format_number(value)
    return _fixed(EXACT.multiply(decimal.Decimal(f"{value:.12g}"), 100), digits)


def _fixed(number: decimal.Decimal, digits: int) -> str:
    """Returns `number` with `digits` decimals, and no minus before a zero."""
    found = EXACT.quantize(number, decimal.Decimal(1).scaleb(-digits))
    return f"{EXACT.abs(found) if found.is_zero() else found:f}"
