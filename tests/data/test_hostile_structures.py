"""No content of a feature file raises anything but a DataError."""

import random

import numpy as np
import pytest
from feature_files import mmim, mmsa, mult
from groups import in_ci

from mmfusion_jax.data.feature_files import reader
from mmfusion_jax.errors import DataError

NAMES = (
    *("video", "visual", "ids", "label", "labels", "Text", "dev", "val", "Train"),
    *(b"audio", "src-text", "punchline_features", "features", 3, None, (1, 2)),
)
WEIRD = (
    *(None, 0, -1, 3.5, float("nan"), 10**30, True, "", "x", "1.5", b"\xff", "\ud800"),
    *([], (), {}, set(), {1, 2}, [1], [[]], [[1], [1, 2]], ["a"] * 8, [None] * 8),
    *([1.0] * 8, [[[1.0]]] * 8, {"a": 1}, [{}] * 8, [{1}] * 8),
    *(np.zeros(s) for s in ((), (0,), (8,), (8, 0), (8, 3), (8, 3, 6), (8, 1, 7))),
    *(np.zeros(s) for s in ((8, 4, 2), (8, 2, 2, 2), (8, 9, 5))),
    *(np.array("a"), np.array(["a"] * 8), np.zeros((8, 3), complex)),
    *(np.full((8, 3, 6), 2**63, np.uint64), np.full((8, 9, 5), np.nan)),
    *(np.array(None, object), np.empty((8, 0), object), np.array([[None]] * 8)),
    *([np.zeros((2, 5))] * 7 + [one] for one in (None, np.zeros(()), np.ones((3, 5)))),
    *([np.zeros(())] * 8, [np.zeros((1, 1, 1))] * 7 + [np.zeros((2, 1, 1))]),
)


def lists():
    return {"train": mmim("train"), "dev": mmim("valid"), "test": mmim("test")}


def words():
    root = lists()
    for split, examples in root.items():
        root[split] = [((["w"], *x[1:3]), *rest) for x, *rest in examples]
    return root


def mutated(rng, value, depth=0):
    """A copy in which one entry is another value, is missing, or has another name."""
    if (
        depth > 4
        or rng.random() < 0.15 * depth
        or not isinstance(value, dict | list | tuple)
    ):
        return rng.choice(WEIRD)
    if not value:
        return rng.choice(WEIRD)
    if isinstance(value, dict):
        made, key = dict(value), rng.choice(list(value))
        one = made.pop(key)
        choice = rng.random()
        if choice < 0.15:
            made[rng.choice(NAMES)] = one
        elif choice < 0.85:
            made[key] = mutated(rng, one, depth + 1)
        return made
    items, index = list(value), rng.randrange(len(value))
    items[index] = mutated(rng, items[index], depth + 1)
    return type(value)(items)


@pytest.mark.parametrize("seed", in_ci(range(3), 0))
def test_only_data_errors(seed):
    rng = random.Random(seed)
    kinds = [mmsa, lambda: mmsa(aligned=True), mult, lists, words]
    kinds.append(lambda: mult(emotions=True))
    read, refused = 0, set()
    for _ in range(150):
        root = mutated(rng, rng.choice(kinds)())
        if rng.random() < 0.3:
            root = mutated(rng, root)
        try:
            _, splits = reader._read_content("file", root)
            if "valid" not in splits:
                cut = reader.cut_off_validation("file", splits["train"])
                splits["train"], splits["valid"] = cut
            reader._checked("file", splits)
        except DataError as error:
            text = str(error)
            assert len(text) < 3000 and text.replace("\n", "").isprintable()
            refused.add(text)
            continue
        read += 1
        for part in splits.values():
            assert all(len(rows) == len(part) for rows in part.inputs.values())
            assert len(part.ids) in (0, len(part)) and len(list(part.examples()))
    assert read and len(refused) > 40
