"""Recognizes layouts of other papers, which are not read, by their content."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmfusion_jax.data.feature_files.entry_names import spelling
from mmfusion_jax.data.feature_files.layout_mmim import matches as is_list_of_examples
from mmfusion_jax.errors import join_names, shown_name, type_name

SECTION = "docs/formats.md, section {!r}, converts it to npz"
MODALITIES = {
    *("text", "audio", "vision", "video", "visual", "acoustic", "language", "textbert"),
    *("glove", "bert", "covarep", "facet", "openface"),
}
LABELS = {
    *("label", "regressionlabel", "classificationlabel", "annotation", "sentiment"),
    *("emotion", "score", "target", "tgt"),
}
EMOTIONS = {"happy", "sad", "angry", "neutral", "happiness", "anger", "sadness"}
_MANY = 12


def describe(root: Any) -> tuple[str, str]:
    """Returns what the content of a file is, and how to convert it.

    Args:
        root: Content of a file that has no supported layout.

    Returns:
        The name of its layout, for the message "FILE is ...", and the fix; "" for both
        if it is unknown.
    """
    for matches, what, fix in _LAYOUTS:
        if matches(root):
            return what, fix
    return "", ""


def content(value: Any) -> str:
    """Returns the content of a file in a few words, such as "a tuple of 7: ..."."""
    if isinstance(value, Mapping):
        names = list(value)
        what = f"a dict with {join_names(names[:_MANY], 'nothing')}"
        more = f" and {len(names) - _MANY:d} more" if len(names) > _MANY else ""
        return f"{what}{more}"
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        parts = [_part(one) for one in value[:_MANY]]
        more = ", ..." if len(value) > _MANY else ""
        suffix = f": {', '.join(map(str, parts))}{more}" if parts else ""
        return f"a {kind} of {len(value)}{suffix}"
    return type_name(value)


def _part(value: Any) -> str:
    """Returns the kind and size of an element."""
    if isinstance(value, np.ndarray):
        return f"array {value.shape}"
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return f"{shown_name(type(value).__name__)} of {len(value)}"
    return shown_name(type(value).__name__)


def _keys(value: Any) -> set[str]:
    """Returns the spellings of the keys of a dict; an empty set for other values."""
    return {spelling(key) for key in value} if isinstance(value, Mapping) else set()


def _parts(root: Any) -> list[Any]:
    """Returns the values of a dict, up to `_MANY`."""
    values = root.values() if isinstance(root, Mapping) else ()
    return [value for value, _ in zip(values, range(_MANY), strict=False)]


def _dialogues(root: Any) -> bool:
    """Dicts by dialogue, and lists of the dialogues of two splits."""
    if not isinstance(root, list | tuple) or len(root) < 5:
        return False
    dicts = [set(one) for one in root if isinstance(one, Mapping) and one]
    listed = any(isinstance(one, list | tuple | set) for one in root[-3:])
    return listed and len(dicts) >= 3 and sum(one == dicts[0] for one in dicts) >= 3


def _padded_utterances(root: Any) -> bool:
    """Arrays (videos utterances f) of two splits, as bc-LSTM stores them."""
    arrays = [one for one in _sequence(root) if isinstance(one, np.ndarray)]
    return len(arrays) >= 3 and {2, 3} <= {one.ndim for one in arrays}


def _sequence(root: Any) -> Sequence[Any]:
    return root if isinstance(root, list | tuple) else ()


def _folds(root: Any) -> bool:
    """Ids of the examples of each split, without features."""
    parts = _parts(root)
    plain = (int, str, bytes)
    return len(parts) >= 2 and all(
        _some(part) and all(isinstance(one, plain) for one in _some(part))
        for part in parts
    )


def _some(part: Any) -> list[Any]:
    """Returns the first elements of a list, set or array; [] for other values."""
    values = part.tolist() if isinstance(part, np.ndarray) else part
    if not isinstance(values, list | tuple | set | frozenset):
        return []
    return [one for one, _ in zip(values, range(_MANY), strict=False)]


def _punchlines(root: Any) -> bool:
    """Features by id, of a context and a punchline."""
    parts = _parts(root)
    return bool(parts) and all(
        any(key.startswith(("punchline", "context")) for key in _keys(part))
        for part in parts
    )


def _hkt_examples(root: Any) -> bool:
    """Lists of (punchline, context, id, label), as HKT stores them."""
    rows = [part[0] for part in _parts(root) if isinstance(part, list) and part]
    return bool(rows) and all(
        isinstance(row, list | tuple)
        and len(row) == 4
        and all(isinstance(one, list | tuple) for one in row[:2])
        for row in rows
    )


def _source_target(root: Any) -> bool:
    """Split -> src-text, src-audio, src-visual and labels."""
    tables = [_keys(part) for part in (root, *_parts(root))]
    return any(len({k for k in keys if k.startswith("src")}) > 1 for keys in tables)


def _by_emotion(root: Any) -> bool:
    """Emotion -> a list of three splits."""
    return len(_keys(root) & EMOTIONS) > 1 and all(
        isinstance(part, list | tuple) for part in _parts(root)
    )


def _segments(root: Any) -> bool:
    """Video -> features and intervals, as the CMU-MultimodalSDK stores sequences."""
    return any({"feature", "interval"} <= _keys(part) for part in _parts(root))


def _unnamed_splits(root: Any) -> bool:
    """A list of two or three dicts of modalities."""
    parts = _sequence(root)
    return len(parts) in (2, 3) and all(_keys(part) & MODALITIES for part in parts)


def _dict_examples(root: Any) -> bool:
    """A list of dicts, one for each example, or such a list for each split."""
    parts = _parts(root) if isinstance(root, Mapping) else [root]
    firsts = [one[:1] for one in parts if isinstance(one, list | tuple) and one]
    return bool(firsts) and all(isinstance(one[0], Mapping) for one in firsts)


def _one_split(root: Any) -> bool:
    """Modalities and labels without splits."""
    keys = _keys(root)
    return bool(keys & MODALITIES) and bool(keys & LABELS)


def _no_labels(root: Any) -> bool:
    """Modalities without splits and labels."""
    keys = _keys(root)
    return bool(keys & MODALITIES) and not keys & LABELS


def _one_clip(root: Any) -> bool:
    """Modalities of one clip, (t f)."""
    arrays = [one for one in _parts(root) if isinstance(one, np.ndarray)]
    return _no_labels(root) and bool(arrays) and max(x.ndim for x in arrays) < 3


def _examples_by_id(root: Any) -> bool:
    """Id -> features of one example."""
    parts = _parts(root)
    return len(parts) > 3 and all(isinstance(p, Mapping | np.ndarray) for p in parts)


_HHMPN = SECTION.format("HHMPN")
_HUMOR = SECTION.format("UR-FUNNY and MUStARD (HKT)")
_LAYOUTS: tuple[tuple[Callable[[Any], bool], str, str], ...] = (
    (
        _dialogues,
        "in the layout of DialogueRNN and COGMEN: dicts by dialogue",
        SECTION.format("DialogueRNN and COGMEN"),
    ),
    (
        _punchlines,
        "in the layout of UR-FUNNY: features of punchlines and contexts by id",
        _HUMOR,
    ),
    (
        _hkt_examples,
        "in the layout of HKT: lists of (punchline, context, id, label)",
        _HUMOR,
    ),
    (
        _folds,
        "a list of the ids of each split, without features, such as data_folds.pkl of "
        "UR-FUNNY",
        _HUMOR,
    ),
    (
        _source_target,
        "in the layout of HHMPN: src-text, src-audio, src-visual; it has emotions and "
        "no sentiment scores",
        f"{_HHMPN}; --dataset=mosei imports it, emotions only",
    ),
    (
        _by_emotion,
        "in the layout of LMF and MFM: three splits for each emotion",
        SECTION.format("LMF"),
    ),
    (
        _segments,
        "a computational sequence of the CMU-MultimodalSDK: features and intervals of "
        "each video",
        SECTION.format("HDF5 and csd"),
    ),
    (
        _padded_utterances,
        "in the layout of bc-LSTM: arrays (videos, utterances, features) of two splits",
        SECTION.format("bc-LSTM"),
    ),
    (
        is_list_of_examples,
        "one split of the layout of MISA and MMIM",
        "import the folder with train.pkl, dev.pkl and test.pkl",
    ),
    (
        _unnamed_splits,
        "splits without their names",
        'save them in one dict: pickle.dump({"train": ..., "valid": ..., "test": ...}, '
        "file)",
    ),
    (
        _dict_examples,
        "a list of examples, each of them a dict",
        "collect each entry of all examples in one list: "
        "part = {key: [one[key] for one in examples] for key in examples[0]}",
    ),
    (
        _one_split,
        "one split, without the names of splits",
        'save all splits in one file: pickle.dump({"train": ..., "valid": ..., '
        '"test": ...}, file)',
    ),
    (
        _one_clip,
        "features of one clip, as MMSA-FET extracts them, without splits and labels",
        "extract the features of the whole dataset, or collect those of its clips; "
        + SECTION.format("Any other file"),
    ),
    (
        _no_labels,
        "features without splits and labels",
        SECTION.format("Any other file"),
    ),
    (
        _examples_by_id,
        "a dict with an entry for each example, without splits",
        SECTION.format("Any other file"),
    ),
)
"""Function that recognizes a layout, its name and the fix."""
