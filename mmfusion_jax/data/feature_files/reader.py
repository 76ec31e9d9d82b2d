"""Reads feature files in all supported layouts into one form.

Files are not trusted: pickles are read by a restricted interpreter (`safe_pickle.py`),
and everything here runs in a sandboxed process (`sandbox.py`).
"""

import dataclasses
import hashlib
import os
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
from mmfusion_jax.errors import (
    DataError,
    join_names,
    shorten,
    shown,
    shown_name,
    shown_path,
    suggest,
)
from mmfusion_jax.safe_load.npz import read_npz
from mmfusion_jax.safe_load.regular_file import check_regular, open_regular
from mmfusion_jax.safe_load.safe_pickle import read_pickle

PICKLED = {"mmsa": layout_mmsa, "mult": layout_mult}
MMIM_FILES = {"train": "train.pkl", "valid": "dev.pkl", "test": "test.pkl"}
"""The files of a folder in the MMIM layout."""

LAYOUTS = (
    "supported layouts: MMSA (regression_labels, text, audio, vision), MulT "
    "(labels, text, audio, vision), npz (train_text, train_score, ...), a folder of "
    "MMIM (train.pkl, dev.pkl, test.pkl); docs/formats.md describes them"
)


OTHER_FORMATS: tuple[tuple[bytes | tuple[bytes, ...], str, str], ...] = (
    (
        (b"<!doctype", b"<html", b"<?xml"),
        "an HTML page instead of a feature file",
        "the download was denied or needs a login: open it in a text editor",
    ),
    (b"\x1f\x8b", "compressed (gzip)", "unpack it: gunzip FILE"),
    (b"7z\xbc\xaf", "compressed (7z)", "unpack it"),
    (b"\x93numpy", "a single array (npy)", LAYOUTS),
    (b"\x89hdf", "HDF5 (.csd), which is not supported", LAYOUTS),
)
"""First bytes, name and fix of formats that are not feature files."""

TEXT_PICKLES = (b"(", b"c", b"}", b"]")
"""First bytes of pickles of protocol 0, which are text."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A feature file.

    Attributes:
        layout: Name of the layout, such as "mmsa_aligned".
        sha256: Hash of its bytes.
        splits: "train", "valid" and "test".
    """

    layout: str
    sha256: str
    splits: Mapping[str, Sequences]


def list_files(path: Path) -> Sequence[Path]:
    """Returns the files of `path`, a file or a folder in the MMIM layout."""
    if not os.path.isdir(path):  # False for a path that cannot be inspected
        check_regular(path, "" if os.path.lexists(path) else _similar_file(path))
        return (path,)
    missing = [name for name in MMIM_FILES.values() if not (path / name).is_file()]
    if missing:
        inside = sorted(str(file) for file in path.glob("*.pkl"))
        raise DataError(
            "D70",
            f"folder {path} has no {join_names(missing)}.",
            f"specify a file in it, such as {shown_path(inside[0])}"
            if inside
            else LAYOUTS,
        )
    return tuple(path / name for name in MMIM_FILES.values())


def read_source(path: Path) -> Source:
    """Reads all splits of a file.

    Raises:
        DataError: The file is missing, damaged, rejected or of an unknown layout.
    """
    files = list_files(path)
    if len(files) > 1:
        rows = {split: read_pickle(path / name) for split, name in MMIM_FILES.items()}
        layout = "mmim"
        splits = {
            split: layout_mmim.read(f"{path}: {split}", part)
            for split, part in rows.items()
        }
    else:
        layout, splits = _read_npz(path) if _is_zip(path) else _read_pickle(path)
    return Source(layout, _sha256(files), _checked(path, splits))


def _sha256(files: Sequence[Path]) -> str:
    """Returns the hash of a file; of several files the hash of their hashes."""
    hashes = []
    for file in files:
        with open_regular(file) as stream:
            # In pieces: the files have gigabytes.
            hashes.append(hashlib.file_digest(stream, "sha256"))
    if len(hashes) == 1:
        return hashes[0].hexdigest()
    return hashlib.sha256(b"".join(one.digest() for one in hashes)).hexdigest()


def _is_zip(path: Path) -> bool:
    """Returns whether a file is an npz; DataError if it is not a pickle either."""
    with open_regular(path) as stream:
        try:
            head = stream.read(64)
        except OSError as error:
            raise DataError(
                "D30", f"{path} cannot be read ({shorten(error)})."
            ) from error
    if not head:
        raise DataError("D70", f"{path} is empty.", "copy or download it again")
    text = head.lstrip().lower()
    for first_bytes, kind, fix in OTHER_FORMATS:
        if text.startswith(first_bytes):
            raise DataError("D70", f"{path} is {kind}.", fix)
    is_text = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    if is_text and not head.startswith(TEXT_PICKLES):
        raise DataError("D70", f"{path} is a text file.", LAYOUTS)
    return head.startswith(b"PK\x03\x04")


def _read_npz(path: Path) -> tuple[str, dict[str, Sequences]]:
    arrays = read_npz(path)
    splits = {}
    for split in SPLITS:
        prefix = f"{split}_"
        names = [name for name in arrays if name.startswith(prefix)]
        if not names:
            raise _unknown_layout(path, arrays)
        table = {name.removeprefix(prefix): arrays[name] for name in names}
        splits[split] = layout_npz.read(CheckedFields(f"{path}: {split}", table))
    return "npz", splits


def _read_pickle(path: Path) -> tuple[str, dict[str, Sequences]]:
    root = read_pickle(path)
    if not isinstance(root, dict):
        raise _unknown_layout(path, [f"(a {type(root).__name__})"])
    missing = [split for split in SPLITS if not isinstance(root.get(split), dict)]
    if missing:
        raise _unknown_layout(path, root, missing[0])
    table = root["train"]
    layout = next((n for n, m in PICKLED.items() if m.matches(table)), None)
    if layout is None:
        raise _unknown_layout(f"{path}: train", table, layout_mmsa.LABELS)
    module = PICKLED[layout]
    fields = {split: CheckedFields(f"{path}: {split}", root[split]) for split in SPLITS}
    suffix = "aligned" if module.is_aligned(fields["train"]) else "unaligned"
    return f"{layout}_{suffix}", {s: module.read(f) for s, f in fields.items()}


def _unknown_layout(where: Any, names: Any, wanted: str = "") -> DataError:
    """Returns the error for a file of an unknown layout."""
    have = [str(name) for name in names]
    hint = suggest(wanted, have) if wanted else ""
    suffix = f", but not {shown(wanted)}" if wanted else ""
    hint = f"{hint}\n       " if hint.startswith("did you mean") else ""
    return DataError(
        "D70",
        f"{where} contains {join_names(have[:12], 'nothing')}{suffix}.",
        f"{hint}{LAYOUTS}",
    )


def _checked(path: Path, splits: Mapping[str, Sequences]) -> Mapping[str, Sequences]:
    """Checks that all splits have the same inputs and labels."""
    first = splits["train"]
    if not first.inputs:
        raise DataError("D70", f"{path} contains labels, but no features.", LAYOUTS)
    for split, part in splits.items():
        for kind in ("inputs", "labels"):
            names, expected = getattr(part, kind), getattr(first, kind)
            if names.keys() != expected.keys():
                raise DataError(
                    "D71",
                    f"{path}: {shown(split)} has the {kind} {join_names(names)}, but "
                    f"'train' has {join_names(expected)}.",
                    "take all splits from the same source",
                )
        for name, rows in part.inputs.items():
            width, expected = rows[0].shape[1:], first.inputs[name][0].shape[1:]
            if width != expected:
                raise DataError(
                    "D71",
                    f"{path}: {shown_name(name)} has {width[0]} features in "
                    f"{shown(split)}, but {expected[0]:d} in 'train'.",
                    "take all splits from the same source",
                )
    return splits


def _similar_file(path: Path) -> str:
    """Returns a hint with the most similar file name in the folder."""
    names = [f.name for f in path.parent.glob("*") if not f.name.startswith(".")]
    return suggest(path.name, names) if 0 < len(names) <= 200 else ""
