"""Reads feature files in all supported layouts into one form.

Files are not trusted: pickles are read by a restricted interpreter (`safe_pickle.py`),
and everything here runs in a sandboxed process (`sandbox.py`).
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmfusion_jax.data.feature_files import (
    layout_mmim,
    layout_mmsa,
    layout_mult,
    layout_npz,
)
from mmfusion_jax.data.feature_files.checked_fields import CheckedFields
from mmfusion_jax.data.feature_files.entry_names import (
    CUTOFF,
    describe_unread,
    find_splits,
    nearest,
)
from mmfusion_jax.data.feature_files.known_datasets import FEATURE_DATASETS
from mmfusion_jax.data.feature_files.known_layouts import content, describe
from mmfusion_jax.data.feature_files.other_formats import (
    changed_in_transfer,
    check_format,
)
from mmfusion_jax.data.feature_files.padded_sequences import Sequences
from mmfusion_jax.data.feature_files.validation_split import cut_off_validation
from mmfusion_jax.data.feature_files.vocabulary import with_word_ids
from mmfusion_jax.data.splits import SPLITS
from mmfusion_jax.errors import (
    DataError,
    closest,
    join_names,
    shorten,
    shown,
    shown_name,
    shown_path,
)
from mmfusion_jax.safe_load.npz import read_npz
from mmfusion_jax.safe_load.regular_file import check_regular, open_regular
from mmfusion_jax.safe_load.safe_pickle import read_pickle

PICKLED = {"mmsa": layout_mmsa, "mult": layout_mult}
MMIM_FILES = {"train": "train.pkl", "valid": "dev.pkl", "test": "test.pkl"}
"""The files of a folder in the MMIM layout, as published."""

LAYOUTS = (
    "supported layouts: MMSA (regression_labels, text, audio, vision), MulT "
    "(labels, text, audio, vision), npz (train_text, train_score, ...), a folder of "
    "MISA or MMIM (train.pkl, dev.pkl, test.pkl), a dict of such lists (MAG-BERT); "
    "docs/formats.md describes them and shows how to convert others"
)

PICKLE_SUFFIXES = (".pkl", ".pickle", ".p")
SUFFIXES = (*PICKLE_SUFFIXES, ".npz")
"""Suffixes of the files that are looked for in a folder."""

MAX_FOLDERS = 1000
"""Number of subfolders of a folder that are searched."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A feature file.

    Attributes:
        layout: Name of the layout, such as "mmsa_aligned".
        sha256: Hash of its bytes.
        splits: "train", "valid" and "test".
        vocabulary: Words in the order of their ids, from 1, if the text is words; else
            (), also for ids that the file has.
    """

    layout: str
    sha256: str
    splits: Mapping[str, Sequences]
    vocabulary: Sequence[str] = ()


def list_files(path: Path) -> Sequence[Path]:
    """Returns the files of `path`, a file or a folder.

    A folder has a pickle for each split, or is above a folder that does, or contains
    one feature file, directly or in a subfolder.

    Raises:
        DataError: There is none, or there are several.
    """
    return tuple(_files(path).values())


def _files(path: Path) -> dict[str, Path]:
    """Returns split -> file, or "" -> the file."""
    if not os.path.isdir(path):  # False for a path that cannot be inspected
        check_regular(path, "" if os.path.lexists(path) else _similar_file(path))
        return {"": path}
    found = _in_folder(path)
    if not found:
        below = [one for one in _visible(path) if one.is_dir()]
        parts = [_in_folder(one) for one in below[:MAX_FOLDERS]]
        found = [one for part in parts for one in part]
    if len(found) == 1:
        return found[0]
    if found:
        names = [next(iter(one.values())) for one in found]
        names = [
            f.parent if len(one) > 1 else f for f, one in zip(names, found, strict=True)
        ]
        raise DataError(
            "D70",
            f"folder {path} contains {len(names)} feature files: "
            f"{join_names(one.relative_to(path) for one in names)}.",
            f"specify one of them, such as {shown_path(str(names[0]))}",
        )
    listed = join_names([one.name for one in _visible(path)][:12], "nothing")
    raise DataError(
        "D70",
        f"folder {path} has no feature file; it contains {listed}.",
        LAYOUTS,
    )


def _in_folder(path: Path) -> list[dict[str, Path]]:
    """Returns the feature files directly in a folder, as by `_files`."""
    files = {
        one.name: one
        for one in _visible(path)
        if one.suffix.lower() in SUFFIXES and one.is_file()
    }
    stems = {one.stem: one for one in files.values() if one.suffix in PICKLE_SUFFIXES}
    splits, _ = find_splits(str(path), stems)
    if {"train", "test"} <= splits.keys():
        return [{split: stems[name] for split, name in splits.items()}]
    return [{"": one} for one in files.values()]


def _visible(path: Path) -> list[Path]:
    """Returns the files and folders in a folder, without hidden ones."""
    try:
        return sorted(one for one in path.iterdir() if not one.name.startswith("."))
    except OSError as error:
        reason = shorten(error.strerror or error)
        raise DataError("D30", f"folder {path} cannot be read ({reason}).") from error


def read_source(path: Path) -> Source:
    """Reads all splits of a file.

    Raises:
        DataError: The file is missing, damaged, rejected or of an unknown layout.
    """
    files = _files(path)
    is_npz = False
    if "" in files:
        where = files[""]
        is_npz = check_format(where)
        root = _read(where, read_npz if is_npz else read_pickle)
    else:
        where = files["train"].parent
        root = {split: _read_pickle(file) for split, file in files.items()}
    layout, splits = (_read_npz if is_npz else _read_content)(str(where), root)
    others = [] if "" in files else _others(where, files)
    if others:
        _add_note(splits, f"files that are not read: {join_names(others[:12])}")
    if where != path:
        _add_note(splits, f"found in the folder: {shown_path(where)}")
    if "valid" not in splits:
        cut = cut_off_validation(str(where), splits["train"])
        splits["train"], splits["valid"] = cut
    splits, words = with_word_ids({split: splits[split] for split in SPLITS})
    sha256 = _sha256(list(files.values()))
    return Source(layout, sha256, _checked(str(where), splits), words)


def _others(folder: Path, files: Mapping[str, Path]) -> list[str]:
    """Returns the names of the files of a folder that are not read."""
    read = set(files.values())
    return [one.name for one in _visible(folder) if one not in read]


def _add_note(splits: dict[str, Sequences], note: str) -> None:
    """Adds a remark about the whole file, to its training split."""
    notes = [note, *splits["train"].notes]
    splits["train"] = dataclasses.replace(splits["train"], notes=notes)


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


def _read_pickle(file: Path) -> Any:
    """Returns the content of a pickle of a folder; DataError if it is another file."""
    if check_format(file):
        raise DataError(
            "D70", f"{file} is an npz, but a pickle is expected here.", LAYOUTS
        )
    return _read(file, read_pickle)


def _read(file: Path, reader: Callable[[Path], Any]) -> Any:
    """Returns the content of a file; DataError, with its cause, if it is damaged."""
    try:
        return reader(file)
    except DataError as error:
        what, fix = changed_in_transfer(file)
        if not what:
            raise
        raise DataError(error.code, f"{file} is damaged: {what}.", fix) from error


def _read_npz(
    where: str, arrays: Mapping[str, Any]
) -> tuple[str, dict[str, Sequences]]:
    starts = {name: name.partition("_")[0] for name in arrays}
    splits, _ = find_splits(where, dict.fromkeys(starts.values()))
    others = [n for n in arrays if starts[n] not in splits.values() or "_" not in n]
    if not splits:
        raise _unknown_layout(where, arrays)
    if others:
        raise DataError(
            "D71",
            f"{where}: arrays that are not read: {describe_unread(others, {})}.",
            "remove them; every name starts with the name of its split, such as "
            "train_audio",
        )
    _check_splits(where, splits, arrays)
    fields = {}
    for split, start in splits.items():
        prefix = f"{start}_"
        table = {
            n.removeprefix(prefix): arrays[n] for n in arrays if starts[n] == start
        }
        fields[split] = CheckedFields(f"{where}: {split}", table)
    found = {split: layout_npz.read(one) for split, one in fields.items()}
    _note_entries(found, {split: one.notes for split, one in fields.items()})
    _note_splits(found, splits, [])
    return "npz", found


def _read_content(where: str, root: Any) -> tuple[str, dict[str, Sequences]]:
    """Reads the splits of a pickle, or of a folder of pickles."""
    if not isinstance(root, Mapping):
        raise _unknown_layout(where, root)
    names, others = find_splits(where, root)
    parts = {split: root[name] for split, name in names.items()}
    train = parts.get("train")
    is_tables = isinstance(train, Mapping)
    if not (is_tables or layout_mmim.matches(train)):
        raise _unknown_layout(where, root)
    _check_splits(where, names, root)
    for split, part in parts.items():
        if is_tables and not isinstance(part, Mapping):
            raise DataError(
                "D70",
                f"{where}: {split} is {content(part)}, but train is a dict of arrays.",
                LAYOUTS,
            )
    if is_tables:
        layout, splits = _read_tables(where, parts)
    else:
        layout = "mmim"
        fields = {
            split: layout_mmim.columns(f"{where}: {split}", part)
            for split, part in parts.items()
        }
        splits = {split: layout_mmim.read(one) for split, one in fields.items()}
        _note_entries(splits, {split: one.notes for split, one in fields.items()})
    _note_splits(splits, names, others)
    return layout, splits


def _check_splits(where: str, names: Mapping[str, Any], root: Iterable[Any]) -> None:
    """Raises DataError if a split is missing that cannot be made."""
    if missing := [split for split in ("train", "test") if split not in names]:
        raise DataError(
            "D70",
            f"{where} has no split {join_names(map(shown, missing))}; it contains "
            f"{join_names(list(root)[:12], 'nothing')}.",
            "a file needs the splits train and test; without valid, some videos of "
            "train are cut off",
        )


def _note_splits(
    splits: dict[str, Sequences], names: Mapping[str, Any], others: Sequence[Any]
) -> None:
    """Adds remarks about splits of other names, and splits that are not read."""
    if others:
        _add_note(splits, f"splits that are not read: {describe_unread(others, {})}")
    if renamed := [(name, s) for s, name in names.items() if name != s]:
        listed = [f"{shown_name(name)} as {shown_name(s)}" for name, s in renamed]
        _add_note(splits, f"splits under another name: {', '.join(map(str, listed))}")


def _read_tables(
    where: str, tables: Mapping[str, Mapping[Any, Any]]
) -> tuple[str, dict[str, Sequences]]:
    """Reads splits that are dicts of arrays."""
    table = tables["train"]
    layout = next((n for n, m in PICKLED.items() if m.matches(table)), None)
    if layout is None:
        raise _no_labels(f"{where}: train", table)
    module = PICKLED[layout]
    fields = {
        split: CheckedFields(f"{where}: {split}", part, module.ALIASES)
        for split, part in tables.items()
    }
    splits = {split: module.read(one) for split, one in fields.items()}
    suffix = (
        "aligned"
        if module.is_aligned(fields["train"], splits["train"])
        else "unaligned"
    )
    _note_entries(splits, {s: _entry_notes(one, module) for s, one in fields.items()})
    return f"{layout}_{suffix}", splits


def _note_entries(
    splits: dict[str, Sequences], notes: Mapping[str, Sequence[str]]
) -> None:
    """Adds remarks about the form of a file, those of all splits only once."""
    for split, part in splits.items():
        first = notes["train"] if split != "train" else ()
        lines = [line for line in notes[split] if line not in first]
        splits[split] = dataclasses.replace(part, notes=[*part.notes, *lines])


def _entry_notes(fields: CheckedFields, module: Any) -> list[str]:
    """Returns remarks about entries of other names, and those that are not read."""
    notes = list(fields.notes)
    if fields.renamed:
        listed = ", ".join(map(str, fields.renamed))
        notes.append(f"entries under another name: {listed}")
    if fields.unread:
        alike = {n: name for name, others in module.ALIASES.items() for n in others}
        unused = getattr(module, "UNUSED", ())
        hints = {
            str(key): nearest(key, module.NAMES, alike)
            for key in fields.unread
            if key not in unused
        }
        notes.append(
            f"entries that are not read: {describe_unread(fields.unread, hints)}"
        )
    return notes


def _no_labels(where: str, table: Mapping[Any, Any]) -> DataError:
    """Returns the error for a split without labels of a known layout."""
    what, fix = describe({"train": table})
    if what:
        return DataError("D70", f"{where} is {what}.", fix)
    have = [str(name) for name in table]
    listed = join_names(have[:12], "nothing")
    labels = (layout_mmsa.LABELS, layout_mult.LABELS)
    classes = [name for name in have if name in layout_mmsa.UNUSED]
    if classes:
        return DataError(
            "D70",
            f"{where} has no scores: it contains {listed}.",
            f"{join_names(classes)} are classes; the scores are named "
            f"{shown_name(layout_mmsa.LABELS)} in the files of MMSA: export them too",
        )
    near = [(name, closest(name, have, CUTOFF)) for name in labels]
    hint = [f"rename {shown(n)} to {shown_name(name)}" for name, n in near if n]
    return DataError(
        "D70",
        f"{where} contains {listed}, but no labels, which are named "
        f"{join_names(labels)}.",
        " or ".join(map(str, hint)) or LAYOUTS,
    )


def _unknown_layout(where: str, root: Any) -> DataError:
    """Returns the error for a file of an unknown layout."""
    what, fix = describe(root)
    if what:
        return DataError("D70", f"{where} is {what}.", fix)
    return DataError("D70", f"{where} is not a known layout: {content(root)}.", LAYOUTS)


def _checked(where: str, splits: Mapping[str, Sequences]) -> Mapping[str, Sequences]:
    """Checks that all splits have the same inputs and labels."""
    first = splits["train"]
    if not first.inputs:
        raise DataError("D70", f"{where} contains labels, but no features.", LAYOUTS)
    for split, part in splits.items():
        for kind in ("inputs", "labels"):
            names, expected = getattr(part, kind), getattr(first, kind)
            if names.keys() != expected.keys():
                raise DataError(
                    "D71",
                    f"{where}: {shown(split)} has the {kind} {join_names(names)}, but "
                    f"'train' has {join_names(expected)}.",
                    "take all splits from the same source",
                )
        for name, rows in part.inputs.items():
            width, expected = rows[0].shape[1:], first.inputs[name][0].shape[1:]
            if width != expected:
                raise DataError(
                    "D71",
                    f"{where}: {shown_name(name)} has {width[0]} features in "
                    f"{shown(split)}, but {expected[0]:d} in 'train'.",
                    "take all splits from the same source",
                )
    return splits


def _similar_file(path: Path) -> str:
    """Returns a hint with the most similar file or dataset; "" for none."""
    names = [f.name for f in path.parent.glob("*") if not f.name.startswith(".")]
    near = closest(path.name, names, CUTOFF) if len(names) <= 200 else ""
    near = near or closest(path.name, FEATURE_DATASETS, CUTOFF)
    return f"did you mean {shown(near)}?" if near else ""
