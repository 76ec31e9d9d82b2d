"""Files of features in every layout of the field, read into one form.

What lies in a file is not trusted: pickles are read by a machine of our own
(`safe_pickle.py`), and all of this belongs in the cage (`cage.py`).
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmfusion_jax.data.feature_files import (
    layout_mmim,
    layout_mmsa,
    layout_mult,
    layout_npz,
)
from mmfusion_jax.data.feature_files.checked_fields import CheckedFields
from mmfusion_jax.data.feature_files.padded_sequences import Sequences
from mmfusion_jax.data.splits import SPLITS
from mmfusion_jax.errors import DataError, suggest
from mmfusion_jax.safe_load.npz import read_npz
from mmfusion_jax.safe_load.safe_pickle import read_pickle

PICKLED = {"mmsa": layout_mmsa, "mult": layout_mult}
LISTS = {"train": "train.pkl", "valid": "dev.pkl", "test": "test.pkl"}
"""The files of a folder in the layout of MMIM."""

LAYOUTS = (
    "layouts that are read: MMSA (regression_labels, text, audio, vision), MulT "
    "(labels, text, audio, vision), npz (train_text, train_score, ...), a folder of "
    "MMIM (train.pkl, dev.pkl, test.pkl); docs/formats.md describes them"
)


OTHERS: tuple[tuple[bytes | tuple[bytes, ...], str, str], ...] = (
    (
        (b"<!doctype", b"<html", b"<?xml"),
        "a web page, not a file of features",
        "the download was refused or wants a login: open it in a text editor",
    ),
    (b"\x1f\x8b", "compressed (gzip)", "unpack it: gunzip FILE"),
    (b"7z\xbc\xaf", "compressed (7z)", "unpack it"),
    (b"\x93numpy", "one array without a name (npy)", LAYOUTS),
    (b"\x89hdf", "HDF5, as .csd files are, which is not read", LAYOUTS),
)
"""How files begin that are something else, what they are, and what to do."""

OLD_PICKLES = (b"(", b"c", b"}", b"]")
"""How pickles of protocol 0 begin, which are text."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A file that was read.

    Attributes:
        layout: such as "mmsa_aligned".
        sha256: of its bytes.
        splits: "train", "valid" and "test".
    """

    layout: str
    sha256: str
    splits: Mapping[str, Sequences]


def list_files(path: Path) -> Sequence[Path]:
    """The files behind `path`, a file or a folder in the layout of MMIM."""
    if not path.exists():
        raise DataError("D30", f"{path} is not there.", _beside(path))
    if not path.is_dir():
        return (path,)
    missing = [name for name in LISTS.values() if not (path / name).is_file()]
    if missing:
        inside = sorted(str(file) for file in path.glob("*.pkl"))[:3]
        raise DataError(
            "D70",
            f"{path} is a folder without {', '.join(missing)}.",
            f"name a file in it, such as {', '.join(inside)}" if inside else LAYOUTS,
        )
    return tuple(path / name for name in LISTS.values())


def read_source(path: Path) -> Source:
    """Everything in a file.

    Raises:
        DataError: it is not there, damaged, refused, or of no layout that is known.
    """
    found = list_files(path)
    if len(found) > 1:
        rows = {split: read_pickle(path / name) for split, name in LISTS.items()}
        layout = "mmim"
        splits = {s: layout_mmim.read(f"{path}: {s}", r) for s, r in rows.items()}
    else:
        layout, splits = _read_npz(path) if _is_zip(path) else _read_pickle(path)
    return Source(layout, _sha256(found), _checked(path, splits))


def _sha256(found: Sequence[Path]) -> str:
    """The hash of a file; of several files the hash of their hashes."""
    hashes = []
    for file in found:
        with file.open("rb") as stream:
            hashes.append(hashlib.file_digest(stream, "sha256"))
    if len(hashes) == 1:
        return hashes[0].hexdigest()
    return hashlib.sha256(b"".join(one.digest() for one in hashes)).hexdigest()


def _is_zip(path: Path) -> bool:
    """Whether a file is an npz; DataError for what is no pickle either."""
    with path.open("rb") as stream:
        head = stream.read(64)
    if not head:
        raise DataError("D70", f"{path} is empty.", "copy or download it again")
    text = head.lstrip().lower()
    for begin, what, fix in OTHERS:
        if text.startswith(begin):
            raise DataError("D70", f"{path} is {what}.", fix)
    letters = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    if letters and not head.startswith(OLD_PICKLES):
        raise DataError("D70", f"{path} is a text file.", LAYOUTS)
    return head.startswith(b"PK\x03\x04")


def _read_npz(path: Path) -> tuple[str, dict[str, Sequences]]:
    arrays = read_npz(path)
    splits = {}
    for split in SPLITS:
        own = f"{split}_"
        table = {k.removeprefix(own): v for k, v in arrays.items() if k.startswith(own)}
        if not table:
            raise _unknown(path, arrays)
        splits[split] = layout_npz.read(CheckedFields(f"{path}: {split}", table))
    return "npz", splits


def _read_pickle(path: Path) -> tuple[str, dict[str, Sequences]]:
    root = read_pickle(path)
    if not isinstance(root, dict):
        raise _unknown(path, [f"(a {type(root).__name__})"])
    missing = [split for split in SPLITS if not isinstance(root.get(split), dict)]
    if missing:
        raise _unknown(path, root, missing[0])
    table = root["train"]
    layout = next((n for n, form in PICKLED.items() if form.fits(table)), None)
    if layout is None:
        raise _unknown(f"{path}: train", table, layout_mmsa.LABELS)
    form = PICKLED[layout]
    fields = {split: CheckedFields(f"{path}: {split}", root[split]) for split in SPLITS}
    way = "aligned" if form.is_aligned(fields["train"]) else "unaligned"
    return f"{layout}_{way}", {split: form.read(f) for split, f in fields.items()}


def _unknown(where: Any, names: Any, wanted: str = "") -> DataError:
    """The error for a file of no layout that is known."""
    have = [str(name) for name in names]
    hint = suggest(wanted, have) if wanted else ""
    lacks = f", but not {wanted!r}" if wanted else ""
    meant = f"{hint}\n       " if hint.startswith("did you mean") else ""
    listed = ", ".join(have[:12]) or "nothing"
    return DataError("D70", f"{where} holds {listed}{lacks}.", f"{meant}{LAYOUTS}")


def _checked(path: Path, splits: Mapping[str, Sequences]) -> Mapping[str, Sequences]:
    """The splits, all of which hold the same things."""
    first = splits["train"]
    if not first.inputs:
        raise DataError("D70", f"{path} holds labels, but no features.", LAYOUTS)
    for split, part in splits.items():
        for kind in ("inputs", "labels"):
            here, there = getattr(part, kind), getattr(first, kind)
            if here.keys() != there.keys():
                raise DataError(
                    "D71",
                    f"{path}: {kind} of {split!r} are {', '.join(here)}, those of "
                    f"'train' {', '.join(there)}.",
                    "take all splits from the same source",
                )
        for name, rows in part.inputs.items():
            width, want = rows[0].shape[1:], first.inputs[name][0].shape[1:]
            if width != want:
                raise DataError(
                    "D71",
                    f"{path}: {name} has {width[0]} features in {split!r} and "
                    f"{want[0]} in 'train'.",
                    "take all splits from the same source",
                )
    return splits


def _beside(path: Path) -> str:
    """What is there with a name like that."""
    near = [f.name for f in path.parent.glob("*") if not f.name.startswith(".")]
    return suggest(path.name, near[:200]) if near and len(near) <= 200 else ""
