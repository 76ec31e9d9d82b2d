"""Inputs for checks: random values, masks of several kinds, and masked garbage."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmfusion_jax.types import Streams, Tokens

ROWS = 4
"""Minimum number of examples of a batch."""

Shape = tuple[int, ...]


def is_float(x: Any) -> bool:
    """Returns whether an array has a floating-point dtype, bfloat16 included."""
    return jax.numpy.issubdtype(x.dtype, jax.numpy.floating)


def random_values(shape: Shape, dtype: Any, high: int, seed: int) -> np.ndarray:
    """Random values of a batch, normal for floats.

    Args:
        shape: (b t ...).
        dtype: Dtype of the values.
        high: For integers, the number of different values 0..high-1.
        seed: Seed of the generator.
    """
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0, high, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def make_streams(
    streams: Mapping[str, Tokens | Sequence[int]],
    *,
    dtypes: Mapping[str, Any] | None = None,
    high: int = 256,
) -> dict[str, Tokens]:
    """Makes a batch in which lengths differ and modalities are missing.

    The first example has all steps, the second fewer; the third has no last and the
    fourth no first modality. With one modality the third has a padded step in front.

    Args:
        streams: Name -> Tokens, whose values and masks are used, repeated up to
            `ROWS` examples, or to an even number of them; or the shape of one example,
            (t ...).
        dtypes: Name -> dtype of the values, where it is not float32.
        high: For integers, the number of different values.
    """
    made = {}
    batches = [len(x.mask) for x in streams.values() if isinstance(x, Tokens)]
    count = max(ROWS, *batches, 0)
    count += count % 2  # for two devices
    for index, (name, given) in enumerate(streams.items()):
        if isinstance(given, Tokens):
            values, mask = np.asarray(given.values), np.asarray(given.mask)
            rows = np.arange(count) % len(mask)
            values, mask, grid = values[rows], mask[rows], given.grid
        else:
            dtype = np.dtype((dtypes or {}).get(name, np.float32))
            shape = (count, *given)
            values, grid = random_values(shape, dtype, high, index), ()
            mask = np.ones(shape[:2], bool)
        rows, steps = mask.shape
        jagged: Any = mask & ragged_mask(rows, steps, index, len(streams))
        array: Any = values
        made[name] = Tokens(array, jagged, grid)
    return made


def ragged_mask(rows: int, steps: int, index: int, count: int) -> np.ndarray:
    """Mask of the modality number `index` of `count`, (rows steps) bool."""
    mask = np.ones((rows, steps), bool)
    mask[1, max(1, -(-2 * steps // 3)) :] = False
    if count == 1:
        mask[2, 0] = steps == 1
        mask[3] = False
    else:
        mask[2] = index < count - 1
        mask[3] = index > 0
    return mask


def with_values(
    streams: Streams, make: Any, *, rows: np.ndarray | None = None
) -> dict[str, Tokens]:
    """Returns streams with the values `make(name, tokens)`, at most in some rows.

    Args:
        streams: Name -> Tokens.
        make: Name and Tokens -> values (b t ...).
        rows: The examples that change, (b) bool; None for all.
    """
    changed = {}
    for name, tokens in streams.items():
        values = np.asarray(make(name, tokens), tokens.values.dtype)
        if rows is not None:
            where = rows.reshape(-1, *[1] * (values.ndim - 1))
            values = np.where(where, values, tokens.values)
        changed[name] = tokens.replace(values=values)
    return changed


def with_masks(streams: Streams, make: Any) -> dict[str, Tokens]:
    """Returns streams with the masks `make(name, tokens)`, (b t) bool."""
    return {
        name: tokens.replace(mask=np.asarray(make(name, tokens), bool))
        for name, tokens in streams.items()
    }


def garbage(dtype: Any) -> dict[str, Any]:
    """Returns the values that masked positions are filled with, by their text."""
    if not np.issubdtype(dtype, np.integer):
        return {"NaN": np.nan, "1e30": 1e30, "-1e30": -1e30}
    info = np.iinfo(dtype)
    return {f"{x:d}": x for x in (info.max, info.min) if x}


def fill_masked(x: Any, mask: Any, value: Any) -> np.ndarray:
    """Returns `x` (b t ...) with `value` where the mask (b t) is False."""
    x = np.asarray(x)
    where = np.asarray(mask).reshape(np.shape(mask) + (1,) * (x.ndim - np.ndim(mask)))
    return np.where(where, x, np.asarray(value, x.dtype))


def example_rows(streams: Streams, rows: Any) -> dict[str, Tokens]:
    """Returns some examples of every stream."""
    return {
        name: tokens.replace(values=tokens.values[rows], mask=tokens.mask[rows])
        for name, tokens in streams.items()
    }


def lengthen(streams: Streams, extra: int) -> dict[str, Tokens]:
    """Returns streams with `extra` masked steps at the end, or half their steps."""
    longer = {}
    for name, tokens in streams.items():
        count = extra or max(2, tokens.mask.shape[1] // 2)
        values: Any = np.asarray(tokens.values)
        more = np.ones((len(values), count, *values.shape[2:]), values.dtype)
        mask = np.zeros((len(values), count), bool)
        longer[name] = tokens.replace(
            values=np.concatenate([values, more], axis=1),
            mask=np.concatenate([tokens.mask, mask], axis=1),
            grid=(),
        )
    return longer


def padding_in_front(streams: Streams) -> dict[str, Tokens]:
    """Returns streams whose padding comes first, and then the valid steps in order."""
    moved = {}
    for name, tokens in streams.items():
        mask = np.asarray(tokens.mask)
        order = np.argsort(mask, axis=1, kind="stable")
        index = order.reshape(*order.shape, *[1] * (np.ndim(tokens.values) - 2))
        values = np.take_along_axis(np.asarray(tokens.values), index, axis=1)
        mask = np.take_along_axis(mask, order, axis=1)
        moved[name] = tokens.replace(values=values, mask=mask)
    return moved
