"""Data sets of the sentiment field, from files that were imported before."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.data.dataset import Dataset, Example, dataset_loader, names_files
from mmfusion_jax.data.feature_files.importer import FOLDER
from mmfusion_jax.data.feature_files.known_datasets import (
    FEATURE_DATASETS,
    POLARITIES,
    FeatureDatasetSpec,
)
from mmfusion_jax.data.feature_files.padded_sequences import video
from mmfusion_jax.data.feature_files.statistics import remarks
from mmfusion_jax.data.outline import Shape, outline_dataset
from mmfusion_jax.data.preprocessing import (
    RunningMoments,
    Standardizer,
    pad_or_truncate,
)
from mmfusion_jax.data.splits import SPLITS
from mmfusion_jax.data.storage.array_record_store import (
    Records,
    Store,
    cache_folder,
    open_store,
)
from mmfusion_jax.data.storage.progress import track
from mmfusion_jax.errors import ConfigError, DataError, suggest

TEXTS = {"vectors": "text", "bert": "pieces", "words": "words"}
"""What to take as the modality "text" -> what it is called in a store."""


@dataclasses.dataclass(frozen=True)
class ImportedSource:
    """One split of a store as examples of one shape.

    Attributes:
        records: of the store.
        stored: modality -> its name in the store.
        lengths: modality -> steps to which it is padded.
        labels: name -> (n ...).
        standards: modality -> brings its features to mean 0 and deviation 1.
    """

    records: Records
    stored: Mapping[str, str]
    lengths: Mapping[str, int]
    labels: Mapping[str, np.ndarray]
    standards: Mapping[str, Standardizer]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Example:
        record = self.records[index]
        inputs, masks = {}, {}
        for modality, name in self.stored.items():
            rows = record[name]
            if modality in self.standards:
                rows = self.standards[modality](rows)
            inputs[modality], masks[modality] = pad_or_truncate(
                rows, self.lengths[modality]
            )
        return {
            "inputs": inputs,
            "masks": masks,
            "labels": {name: value[index] for name, value in self.labels.items()},
            "weight": np.float32(1),
        }


def load_sentiment_file(
    name: str,
    *,
    file: str = "",
    text: str = "vectors",
    standardize: Sequence[str] = (),
) -> Dataset:
    """A data set whose file was imported by `python -m mmfusion_jax data import`.

    An example holds "text", "audio" and "video", those of them that the file has:
    (t f) float32, or (t) int32 where the text is ids; t is the longest of all splits.
    Padding is at the end. A modality of which an example has no step is missing.

    Labels: "score" of the clip, of CH-SIMS also "score_text", "score_audio" and
    "score_video" of one modality alone, float32, and "polarity" of the score, of
    `kinds.POLARITY`; or of IEMOCAP "emotions", (4) int32 0 or 1.

    Args:
        name: a key of `KINDS`.
        file: which import to take, or how its name begins; "" for the only one.
        text: "vectors" that the file holds for each word, "bert" for ids of word
            pieces, "words" for numbers of words.
        standardize: modalities to bring to mean 0 and deviation 1 by the training
            split; published models take the features as they are.

    Raises:
        ConfigError: an option is unknown.
        DataError: nothing was imported, or it lacks what is asked.
    """
    kind = FEATURE_DATASETS[name]
    store = _opened(name, file)
    report = store.manifest["report"]
    stored = _stored(store, text)
    standards = {m: _standard(report, stored, m) for m in standardize}
    longest = lambda one: max(p["inputs"][one]["steps"][2] for p in report.values())
    lengths = {modality: max(1, longest(one)) for modality, one in stored.items()}
    labels = {split: _labels(part["labels"]) for split, part in report.items()}
    sources = {
        split: ImportedSource(
            store.source(split), stored, lengths, labels[split], standards
        )
        for split in report
    }
    scores = [label for label in labels["train"] if label.startswith("score")]
    return Dataset(
        name,
        f"{kind.title} ({store.manifest['known'] or store.folder.name})",
        sources,
        {"polarity": POLARITIES} if scores else {},
        labels=labels,
        groups=_groups(kind, report),
        values={label: kind.target for label in scores if kind.target is not None},
        flags={kind.label: kind.flags} if kind.flags else {},
        ids=_id_range(report, stored),
        facts=_facts(store, kind, text, standardize),
    )


def outline(
    name: str,
    *,
    file: str = "",
    text: str = "vectors",
    standardize: Sequence[str] = (),
) -> Dataset:
    """What `load_sentiment_file` returns, with zeros for examples; reads nothing.

    Releases differ in their shapes; these are the ones of `Kind.shapes`.
    """
    kind = FEATURE_DATASETS[name]
    steps = kind.shapes["text"][0]
    shapes: dict[str, Shape] = {m: (s, "float32") for m, s in kind.shapes.items()}
    if text != "vectors":
        _check_text(text)
        if not kind.pieces:
            raise _no_text(text, f"no file of {kind.title} has such text", ["vectors"])
        shapes["text"] = ((steps,), "int32")
    for modality in standardize:
        _check_standard(modality, [m for m in shapes if len(shapes[m][0]) == 2])
    scores = [] if kind.target is None else [kind.label, *kind.unimodal]
    return outline_dataset(
        name,
        f"{kind.title} (as published)",
        dict(zip(SPLITS, kind.counts[0], strict=True)),
        shapes,
        classes={"polarity": POLARITIES} if scores else {},
        values={label: kind.target for label in scores if kind.target is not None},
        flags={kind.label: kind.flags} if kind.flags else {},
    )


def _has_files(name: str, options: Mapping[str, Any]) -> bool:
    """Whether options name an import, or one was made."""
    return names_files(options) or bool(list_imports(name))


@dataset_loader(
    outline=functools.partial(outline, "mosi"),
    has_files=functools.partial(_has_files, "mosi"),
)
def load_mosi(
    *, file: str = "", text: str = "vectors", standardize: Sequence[str] = ()
) -> Dataset:
    """CMU-MOSI from an imported file; see `load_sentiment_file`."""
    return load_sentiment_file("mosi", file=file, text=text, standardize=standardize)


@dataset_loader(
    outline=functools.partial(outline, "mosei"),
    has_files=functools.partial(_has_files, "mosei"),
)
def load_mosei(
    *, file: str = "", text: str = "vectors", standardize: Sequence[str] = ()
) -> Dataset:
    """CMU-MOSEI from an imported file; see `load_sentiment_file`."""
    return load_sentiment_file("mosei", file=file, text=text, standardize=standardize)


@dataset_loader(
    outline=functools.partial(outline, "sims"),
    has_files=functools.partial(_has_files, "sims"),
)
def load_sims(
    *, file: str = "", text: str = "vectors", standardize: Sequence[str] = ()
) -> Dataset:
    """CH-SIMS from an imported file; see `load_sentiment_file`."""
    return load_sentiment_file("sims", file=file, text=text, standardize=standardize)


@dataset_loader(
    outline=functools.partial(outline, "iemocap"),
    has_files=functools.partial(_has_files, "iemocap"),
)
def load_iemocap(
    *, file: str = "", text: str = "vectors", standardize: Sequence[str] = ()
) -> Dataset:
    """IEMOCAP from an imported file; see `load_sentiment_file`."""
    return load_sentiment_file("iemocap", file=file, text=text, standardize=standardize)


def _opened(name: str, file: str, flag: str = "--config.data.file") -> Store:
    """The store that is meant by what `flag` says, its splits in their usual order."""
    folder = _folder(name, file, flag)
    try:
        store = open_store(folder)
    except DataError as error:
        fix = f"rm -r {folder}; python -m mmfusion_jax data import FILE --as={name}"
        raise DataError(error.code, error.args[0], fix) from error
    report = {split: store.manifest["report"][split] for split in SPLITS}
    return Store(store.folder, {**store.manifest, "report": report})


def list_imports(name: str) -> list[str]:
    """The names of all imports of a data set."""
    root = cache_folder(FOLDER) / name
    return sorted(
        path.name
        for path in (root.iterdir() if root.is_dir() else ())
        if path.is_dir() and not path.name.startswith(".")
    )


def _folder(name: str, file: str, flag: str) -> Path:
    """The store that is meant."""
    found = list_imports(name)
    if not found:
        raise _nothing(name)
    root = cache_folder(FOLDER) / name
    chosen = [one for one in found if one.startswith(file)]
    if len(chosen) == 1:
        return root / chosen[0]
    listed = " or ".join(f"{flag}={one}" for one in chosen or found)
    what = "fits none" if not chosen else "could mean several"
    raise DataError("D76", f"{flag}={file!r} {what} of what is there.", listed)


def _nothing(name: str) -> DataError:
    """The error where nothing was imported: what to get, where, and what to type."""
    kind = FEATURE_DATASETS[name]
    files = "\n".join(f"  {file}" for file in kind.files)
    return DataError(
        "D75",
        f"no file of {kind.title} was imported. Get one of\n{files}",
        f"python -m mmfusion_jax data import FILE --as={name}\n       without it, "
        f"--config={kind.config.split(':')[0]} runs on embedded data",
    )


def _stored(store: Store, text: str) -> dict[str, str]:
    """Modality -> its name in the store."""
    _check_text(text)
    here = store.manifest["report"]["train"]["inputs"]
    chosen = {"text": TEXTS[text], "audio": "audio", "video": "video"}
    if chosen["text"] not in here and (have := [t for t in TEXTS if TEXTS[t] in here]):
        raise _no_text(text, f"{store.manifest['file']} has no such text", have)
    return {modality: one for modality, one in chosen.items() if one in here}


def _check_text(text: str) -> None:
    """Raises ConfigError for a kind of text that no file has."""
    if text not in TEXTS:
        raise ConfigError(
            "C03", f"config.data.text={text!r} is unknown.", suggest(text, TEXTS)
        )


def _no_text(text: str, why: str, have: Sequence[str]) -> DataError:
    """The error for a kind of text that is not there."""
    return DataError(
        "D77",
        f"config.data.text={text!r}: {why}.",
        " or ".join(f"--config.data.text={one}" for one in have),
    )


def _check_standard(modality: str, vectors: Sequence[str]) -> None:
    """Raises ConfigError for a modality that cannot be standardised."""
    if modality not in vectors:
        raise ConfigError(
            "C03",
            f"config.data.standardise={modality!r} is no modality of vectors.",
            suggest(modality, vectors),
        )


def _standard(
    report: Mapping[str, Any], stored: Mapping[str, str], modality: str
) -> Standardizer:
    """Of the training split."""
    here = report["train"]["inputs"]
    vectors = [m for m, one in stored.items() if here[one].get("count")]
    _check_standard(modality, vectors)
    told = here[stored[modality]]
    sums = np.array(told["total"]), np.array(told["square"])
    return Standardizer.fit([RunningMoments(told["count"], *sums)])


def _id_range(
    report: Mapping[str, Any], stored: Mapping[str, str]
) -> dict[str, tuple[int, int]]:
    """Modality -> smallest and largest id, of modalities that are ids."""
    found = {}
    for modality, one in stored.items():
        told = [part["inputs"][one] for part in report.values()]
        if any(each["features"] for each in told):
            continue
        low = min(each["low"] or 0 for each in told)
        found[modality] = int(low), int(max(each["high"] or 0 for each in told))
    return found


def _labels(told: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Labels of a split, with the sign of its scores."""
    labels = {
        name: np.asarray(values, np.int32 if name == "emotions" else np.float32)
        for name, values in told.items()
    }
    if "score" in labels:
        labels["polarity"] = (np.sign(labels["score"]) + 1).astype(np.int32)
    return labels


def _groups(
    kind: FeatureDatasetSpec, report: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Split -> videos, where no video may be in two."""
    if not kind.by_video or not all(part["ids"] for part in report.values()):
        return {}
    return {s: sorted({video(i) for i in p["ids"]}) for s, p in report.items()}


def _facts(
    store: Store, kind: FeatureDatasetSpec, text: str, standardise: Sequence[str]
) -> dict[str, Any]:
    """What results say of the data."""
    manifest = store.manifest
    told = remarks(manifest["report"], kind)
    if not manifest["known"]:
        told.append(f"{manifest['file']} is none of the files with a known checksum")
    return {
        "prepared": store.folder.name,
        "sha256": manifest["sha256"],
        "licence": manifest["licence"],
        "counts": manifest["counts"],
        "repaired": manifest["repaired"],
        "text": text,
        "standardised": list(standardise),
        "warnings": told,
    }


def check_imported(name: str, file: str = "") -> dict[str, Any]:
    """What `import_file.examine` found when a data set was imported.

    Every example is read, so that damage shows.

    Raises:
        DataError: nothing was imported, or it is damaged.
    """
    store = _opened(name, file, "--file")
    for split in SPLITS:
        count = store.manifest["counts"][split]
        records = store.source(split)
        for i in track(range(count), count, f"reading {split}"):
            records[i]
    return dict(store.manifest)
