"""Tiny feature files in every layout and pickle protocol."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

COUNTS = {"train": 8, "valid": 4, "test": 5}
STEPS, WIDTHS = {"text": 6, "audio": 9, "video": 7}, {"text": 8, "audio": 5, "video": 4}
EMOTIONS = 4


def lengths(split: str, name: str) -> np.ndarray:
    """Number of valid steps of every example; the first has the most."""
    rng = np.random.default_rng([*split.encode(), *name.encode()])
    found = rng.integers(2, STEPS[name] + 1, COUNTS[split])
    found[0] = STEPS[name]
    return found


def rows(split: str, name: str, length: np.ndarray) -> list[np.ndarray]:
    """The valid steps of every example, (t f) float32, none of them zero."""
    rng = np.random.default_rng([*split.encode(), *name.encode(), 1])
    draw = lambda n: rng.uniform(0.5, 3, (n, WIDTHS[name])) * rng.choice([-1, 1])
    return [draw(n).astype("f4") for n in length]


def scores(split: str, high: float = 3.0) -> np.ndarray:
    rng = np.random.default_rng([*split.encode(), 2])
    return (rng.uniform(-1, 1, COUNTS[split]) * high).astype("f4")


def clips(split: str) -> list[str]:
    """Names of the clips, two of a video."""
    return [f"{split}{i // 2}$_${i}" for i in range(COUNTS[split])]


def padded(parts: list[np.ndarray], steps: int, *, front: bool = False) -> np.ndarray:
    """(n t f), padded with zeros at the end or in front."""
    made = np.zeros((len(parts), steps, parts[0].shape[-1]), "f4")
    for row, part in zip(made, parts, strict=True):
        row[(steps - len(part) if front else 0) :][: len(part)] = part
    return made


def mmsa(*, aligned: bool = False, high: float = 3.0, sims: bool = False) -> dict:
    """The layout of MMSA."""
    root = {}
    for split, count in COUNTS.items():
        own = {n: lengths(split, "text" if aligned else n) for n in STEPS}
        steps = dict.fromkeys(STEPS, STEPS["text"]) if aligned else STEPS
        mask = np.arange(STEPS["text"]) < own["text"][:, None]
        ids = np.random.default_rng(3).integers(1, 60, mask.shape) * mask
        label = scores(split, high)
        table: dict[str, Any] = {
            "raw_text": np.array([f"très bien {i}" for i in range(count)]),
            "id": clips(split),
            "text_bert": np.stack([ids, mask, 0 * ids], axis=1).astype("f4"),
            "annotations": ["Neutral"] * count,
            "classification_labels": (np.sign(label) + 1).astype("f4"),
            "regression_labels": label,
        }
        for name, key in (("text", "text"), ("audio", "audio"), ("video", "vision")):
            table[key] = padded(rows(split, name, own[name]), steps[name])
        if not aligned:
            table["audio_lengths"] = own["audio"].tolist()
            table["vision_lengths"] = own["video"].tolist()
        if sims:
            table |= {f"regression_labels_{m}": label[::-1] for m in "TAV"}
        root[split] = table
    return root


def mult(*, aligned: bool = False, emotions: bool = False) -> dict:
    """The layout of MulT; left-padded."""
    root = {}
    for split, count in COUNTS.items():
        own = {n: lengths(split, "text" if aligned else n) for n in STEPS}
        steps = dict.fromkeys(STEPS, STEPS["text"]) if aligned else STEPS
        made = {n: padded(rows(split, n, own[n]), steps[n], front=True) for n in STEPS}
        table = {"text": made["text"], "audio": made["audio"], "vision": made["video"]}
        if emotions:
            flags = np.random.default_rng(4).integers(0, 2, (count, EMOTIONS))
            table["labels"] = np.eye(2)[flags]
        else:
            table["labels"] = scores(split)[:, None, None]
            parts = [
                [c.split("$_$")[0], f"{i}.0", "9"] for i, c in enumerate(clips(split))
            ]
            table["id"] = np.array(parts, "S9")
        root[split] = table
    return root


def mmim(split: str) -> list:
    """The layout of MMIM: one of three files."""
    own = {name: rows(split, name, lengths(split, name)) for name in STEPS}
    return [
        (
            (np.arange(len(t)) + 1, v, a, ["so"] * len(t), np.int64(len(v)), len(a)),
            np.array([[y]], "f4"),
            f"{split}{i // 2}[{i}]",
        )
        for i, (t, v, a, y) in enumerate(
            zip(own["text"], own["video"], own["audio"], scores(split), strict=True)
        )
    ]


def npz(*, emotions: bool = False) -> dict[str, np.ndarray]:
    """The npz layout of this library."""
    arrays = {}
    for split in COUNTS:
        for name in STEPS:
            own = lengths(split, name)
            arrays[f"{split}_{name}"] = padded(rows(split, name, own), STEPS[name])
            if name == "video":
                arrays[f"{split}_video_lengths"] = own
        arrays[f"{split}_id"] = np.array(clips(split))
        if emotions:
            arrays[f"{split}_emotions"] = np.eye(EMOTIONS, dtype="i8")[
                np.arange(COUNTS[split]) % EMOTIONS
            ]
        else:
            arrays[f"{split}_score"] = scores(split)
    return arrays


def write(path: Path, root: Any, protocol: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(root, protocol))
    return path


def write_mmim(folder: Path) -> Path:
    for split, name in (("train", "train"), ("valid", "dev"), ("test", "test")):
        write(folder / f"{name}.pkl", mmim(split), 2)
    return folder


def equal_clips(first: str, second: str) -> dict:
    """A file in which one clip of a split is also in another one, with another id."""
    root = mmsa()
    one, other = root[first], root[second]
    for name in ("text", "text_bert", "audio", "vision"):
        other[name][1] = one[name][0]
    for name in ("audio_lengths", "vision_lengths"):
        other[name][1] = one[name][0]
    return root
