"""CMU-MOSI, CMU-MOSEI, CH-SIMS and IEMOCAP from imported feature files."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np

from mmfusion_jax.data.array_hashes import hash_arrays
from mmfusion_jax.data.dataset import (
    Dataset,
    Example,
    dataset_loader,
    names_files,
    unique_ids,
)
from mmfusion_jax.data.feature_files.emotion_labels import (
    CLASS,
    FLAGS,
    LeftOut,
    one_class,
)
from mmfusion_jax.data.feature_files.findings import copies, find_problems, videos_of
from mmfusion_jax.data.feature_files.import_manifest import (
    VERSION,
    ImportManifest,
    open_import,
)
from mmfusion_jax.data.feature_files.importer import FOLDER
from mmfusion_jax.data.feature_files.known_datasets import (
    FEATURE_DATASETS,
    POLARITIES,
    FeatureDatasetSpec,
    main_label,
)
from mmfusion_jax.data.feature_files.summary import SplitStats
from mmfusion_jax.data.feature_files.vocabulary import UNKNOWN_TOKEN
from mmfusion_jax.data.option_checks import check_choice
from mmfusion_jax.data.outline import Shape, outline_dataset
from mmfusion_jax.data.preprocessing import (
    RunningMoments,
    Standardizer,
    pad_or_truncate,
)
from mmfusion_jax.data.splits import SPLITS
from mmfusion_jax.data.storage.array_record_store import Records, Store, cache_folder
from mmfusion_jax.data.storage.progress import track
from mmfusion_jax.data.storage.store_origin import StoreOrigin, store_origin
from mmfusion_jax.errors import (
    ConfigError,
    DataError,
    shorten,
    shown,
    shown_name,
    suggest,
)
from mmfusion_jax.results.predictor_file import Preprocessing, Tokenizer
from mmfusion_jax.results.run_identity import sha256_json

TEXTS = {"vectors": "text", "bert": "pieces", "words": "words"}
"""Option `text` -> its name in a store."""


@dataclasses.dataclass(frozen=True)
class ImportedSource:
    """One split of a store as padded examples.

    Attributes:
        records: records of the store.
        stored: modality -> its name in the store.
        lengths: modality -> number of steps after padding.
        labels: name -> (n ...).
        standardizers: modality -> standardizes its features.
        rows: positions of its examples among the records, (n) int.
        digest: hash of the import and its split.
    """

    records: Records
    stored: Mapping[str, str]
    lengths: Mapping[str, int]
    labels: Mapping[str, np.ndarray]
    standardizers: Mapping[str, Standardizer]
    rows: np.ndarray
    digest: str

    def __len__(self) -> int:
        return len(self.rows)

    def content_digest(self) -> str:
        """Returns a hash of the imported file and of what is read of it."""
        return sha256_json([self.digest, {**self.stored}, hash_arrays([self.rows])])

    def __getitem__(self, index: int) -> Example:
        record = self.records[int(self.rows[index])]
        inputs, masks = {}, {}
        for modality, name in self.stored.items():
            rows = record[name]
            if modality in self.standardizers:
                rows = self.standardizers[modality](rows)
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
    label: str = "",
    equal_clips: bool = False,
) -> Dataset:
    """Loads a dataset that was imported by `python -m mmfusion_jax data import`.

    The inputs of an example are those of "text", "audio" and "video" that the file has:
    (t f) float32, or (t) int32 token ids; t is the longest of all splits. Padding is at
    the end. A modality without steps is missing.

    Labels: "score" of the clip, in CH-SIMS also "score_text", "score_audio" and
    "score_video" of single modalities, float32, and "polarity", the sign of the score,
    with the classes `POLARITIES`; in IEMOCAP, and in files of CMU-MOSEI that have
    them, "emotions", (k) int32 0 or 1, and, if it is the label in use, "emotion", the
    class of the one flag that is set. Examples with none or several are then left out.
    Files of CMU-MOSEI with emotions only have neither score nor polarity.

    Args:
        name: key of `FEATURE_DATASETS`.
        file: name of the import, or the beginning of it; "" if there is only one.
        text: "vectors" for word embeddings, "bert" for BERT token ids, "words" for word
            ids.
        standardize: modalities to standardize with the statistics of the training
            split, with all of its examples; published models use the original features.
        label: the label in use; "" for any but "emotion".
        equal_clips: accept examples with equal features in two splits.

    Raises:
        ConfigError: an option is unknown, or the file has no such label.
        DataError: the dataset has not been imported, the file has no such text, or
            examples with equal features are in two splits.
    """
    spec = FEATURE_DATASETS[name]
    store, manifest = open_import(find_import(name, file, "--config.data.file"), name)
    if not equal_clips:
        _check_copies(manifest)
    splits = manifest.splits
    stored = _stored(manifest, text)
    standardizers = {m: _standardizer(splits["train"], stored, m) for m in standardize}
    longest = lambda one: max(p.inputs[one].steps.maximum for p in splits.values())
    lengths = {modality: max(1, longest(one)) for modality, one in stored.items()}
    _check_label(manifest, label)
    labels = {split: _labels(part) for split, part in splits.items()}
    rows = {split: np.arange(part.count) for split, part in splits.items()}
    left_out: dict[str, LeftOut] = {}
    if label == CLASS:
        for split, part in labels.items():
            rows[split], labels[split], left_out[split] = _one_emotion(part)
    sources = {
        split: ImportedSource(
            store.source(split),
            stored,
            lengths,
            labels[split],
            standardizers,
            rows[split],
            _digest(manifest, split),
        )
        for split in splits
    }
    scores = [one for one in labels["train"] if one.startswith("score")]
    release = manifest.known or store.folder.name
    facts = _facts(store, manifest, text, standardize)
    facts["counts"] = {split: len(source) for split, source in sources.items()}
    in_use = label or main_label(spec, labels["train"])
    facts["warnings"] += _label_remarks(spec, in_use, left_out)
    ids = {s: [part.ids[i] for i in rows[s] if part.ids] for s, part in splits.items()}
    return Dataset(
        name,
        _title(spec, in_use, release),
        sources,
        _classes(spec, label, bool(scores)),
        labels=labels,
        groups=_groups(spec, splits),
        values={one: spec.target for one in scores if spec.target is not None},
        flags={FLAGS: spec.flags} if FLAGS in labels["train"] else {},
        ids=_id_range(splits, stored),
        example_ids=unique_ids(ids),
        facts=facts,
        preprocessing=Preprocessing(
            {m: s.scaling for m, s in standardizers.items()},
            tokenizer=_tokenizer(manifest, stored, lengths),
        ),
    )


def outline(
    name: str,
    *,
    file: str = "",
    text: str = "vectors",
    standardize: Sequence[str] = (),
    label: str = "",
    equal_clips: bool = False,
) -> Dataset:
    """Outline of `load_sentiment_file`; reads nothing.

    Releases differ in their shapes; these are those of `FeatureDatasetSpec.shapes`. How
    many examples have exactly one emotion is known from the file only.
    """
    del file, equal_clips
    spec = FEATURE_DATASETS[name]
    steps = spec.shapes["text"][0]
    shapes: dict[str, Shape] = {m: (s, "float32") for m, s in spec.shapes.items()}
    if text != "vectors":
        check_choice("text", text, TEXTS)
        if not spec.has_token_ids:
            raise _no_text(text, f"no file of {spec.title} has such text", ["vectors"])
        shapes["text"] = ((steps,), "int32")
    for modality in standardize:
        _check_standardize(modality, [m for m in shapes if len(shapes[m][0]) == 2])
    scores = [] if spec.target is None else [spec.label, *spec.unimodal]
    has_flags = spec.label == FLAGS or (spec.flags and label in (FLAGS, CLASS))
    return outline_dataset(
        name,
        _title(spec, label or spec.label, "as published"),
        dict(zip(SPLITS, spec.counts[0], strict=True)),
        shapes,
        classes=_classes(spec, label, bool(scores)),
        values={one: spec.target for one in scores if spec.target is not None},
        flags={FLAGS: spec.flags} if has_flags else {},
    )


def _title(spec: FeatureDatasetSpec, label: str, release: str) -> str:
    """Returns the title of a dataset, which names the kind of its emotion labels."""
    kinds = {
        FLAGS: f", {len(spec.flags)} yes/no emotions",
        CLASS: f", one of {len(spec.flags)} emotions",
    }
    what = kinds.get(label, "")
    return f"{spec.title}{what} ({shown_name(release)})"


def _classes(
    spec: FeatureDatasetSpec, label: str, has_scores: bool
) -> dict[str, tuple[str, ...]]:
    """Returns the class labels; "emotion" only if it is the label in use."""
    found: dict[str, tuple[str, ...]] = {}
    if has_scores:
        found["polarity"] = POLARITIES
    if label == CLASS and spec.flags:
        found[CLASS] = spec.flags
    return found


def _tokenizer(
    manifest: ImportManifest, stored: Mapping[str, str], lengths: Mapping[str, int]
) -> Tokenizer | None:
    """Returns how words became ids; None if the text is not words of the import."""
    if stored.get("text") != TEXTS["words"] or not manifest.vocabulary:
        return None
    return Tokenizer(
        [UNKNOWN_TOKEN, *manifest.vocabulary], lengths["text"], lowercase=False
    )


def _check_copies(manifest: ImportManifest) -> None:
    """Raises DataError if examples with equal features are in two splits."""
    if lines := copies(manifest):
        raise DataError(
            "D73",
            f"{shorten(manifest.file)}: {lines[0]}.",
            "--config.data.equal_clips=True accepts them; data import --drop_bad "
            "leaves them out of the earlier split",
        )


def _check_label(manifest: ImportManifest, label: str) -> None:
    """Raises ConfigError if the label in use requires labels that the file lacks."""
    labels = manifest.splits["train"].labels
    if label in ("score", "polarity") and "score" not in labels:
        raise ConfigError(
            "C07",
            f"config.data.label={shown(label)}: {shorten(manifest.file)} has emotions "
            "and no scores.",
            f"--config.data.label={CLASS} with a loss for classes, or "
            f"--config.data.label={FLAGS} --config.losses.task.name=multilabel",
        )
    if label in (FLAGS, CLASS) and FLAGS not in manifest.splits["train"].flags:
        raise ConfigError(
            "C07",
            f"config.data.label={shown(label)}: {shorten(manifest.file)} has no "
            "emotions.",
            "docs/formats.md shows which files have them; --config.data.label=score",
        )


def _one_emotion(
    labels: Mapping[str, np.ndarray],
) -> tuple[np.ndarray, dict[str, np.ndarray], LeftOut]:
    """Returns the examples with one emotion, their labels, and how many are left out.

    Args:
        labels: Name -> label of every example of a split, (n ...).
    """
    rows, classes, left_out = one_class(labels[FLAGS])
    kept = {name: values[rows] for name, values in labels.items()}
    return rows, {**kept, CLASS: classes}, left_out


def _label_remarks(
    spec: FeatureDatasetSpec, label: str, left_out: Mapping[str, LeftOut]
) -> list[str]:
    """Returns what a label is not comparable with, and what it leaves out."""
    found = []
    if label in spec.not_comparable:
        reason = spec.not_comparable[label]
        found.append(f"label {shown(label)}: {reason}")
    if left_out:
        total = sum(one.total for one in left_out.values())
        listed = "; ".join(
            f"{split}: {one.description}" for split, one in left_out.items()
        )
        found.append(f"label {shown(label)}: {total} examples are left out ({listed})")
    return found


def _has_files(name: str, options: Mapping[str, Any]) -> bool:
    """Returns whether options name an import, or there is one."""
    return names_files(options) or bool(list_imports(name))


class SentimentLoader(Protocol):
    """A loader of one dataset; the arguments are those of `load_sentiment_file`."""

    def __call__(
        self,
        *,
        file: str = "",
        text: Literal["vectors", "bert", "words"] = "vectors",
        standardize: Sequence[str] = (),
        label: str = "",
        equal_clips: bool = False,
    ) -> Dataset: ...


_DOCSTRING = """TITLE from an imported file; see `load_sentiment_file`.

Example:
    >>> import mmfusion_jax as mmf
    >>> try:
    ...     mmf.datasets.NAME(file="no_such_import")
    ... except mmf.DataError as error:
    ...     print(error.code)
    D75
"""


def _loader(name: str) -> SentimentLoader:
    """Returns `load_<name>`, the loader of a dataset, with its declarations."""

    @dataset_loader(
        takes=("label",),
        outline=functools.partial(outline, name),
        has_files=functools.partial(_has_files, name),
    )
    def load(
        *,
        file: str = "",
        text: Literal["vectors", "bert", "words"] = "vectors",
        standardize: Sequence[str] = (),
        label: str = "",
        equal_clips: bool = False,
    ) -> Dataset:
        return load_sentiment_file(
            name,
            file=file,
            text=text,
            standardize=standardize,
            label=label,
            equal_clips=equal_clips,
        )

    title = FEATURE_DATASETS[name].title
    load.__name__ = load.__qualname__ = f"load_{name}"
    load.__doc__ = _DOCSTRING.replace("TITLE", title).replace("NAME", name)
    return load


load_mosi = _loader("mosi")
load_mosei = _loader("mosei")
load_sims = _loader("sims")
load_iemocap = _loader("iemocap")


def list_imports(name: str) -> list[str]:
    """Returns the names of the imports of a dataset.

    Those of another version are listed only if all are of another version.
    """
    root = cache_folder(FOLDER) / name
    found = sorted(
        path.name
        for path in (root.iterdir() if root.is_dir() else ())
        if path.is_dir() and not path.name.startswith(".")
    )
    if len(found) < 2:
        return found  # manifests are large
    return [one for one in found if _origin(root / one).version == VERSION] or found


def find_import(name: str, file: str, flag: str) -> Path:
    """Returns the store of an import.

    Args:
        name: key of `FEATURE_DATASETS`.
        file: name of the import, or the beginning of it, or the name of the file that
            was imported; "" if there is only one.
        flag: name of the flag for `file`, for error messages.

    Raises:
        DataError: the dataset has not been imported, or `file` does not match exactly
            one import.
    """
    imports = list_imports(name)
    if not imports:
        raise _not_imported(name)
    root = cache_folder(FOLDER) / name
    matching = [one for one in imports if one.startswith(file)]
    if not matching:
        matching = [one for one in imports if _origin(root / one).source == file]
    if len(matching) == 1:
        return root / matching[0]
    listed = describe_imports(name, matching or imports)
    choices = "\n       ".join(f"{shown_name(flag)}={line}" for line in listed)
    what = "is ambiguous" if matching else "has no match"
    raise DataError(
        "D76",
        f"{shown_name(flag)}={shown(file)} {what} among the imports of "
        f"{shown_name(name)}.",
        choices,
    )


def describe_imports(name: str, imports: Sequence[str]) -> list[str]:
    """Returns a line for each import of a dataset: name, contents, source and date."""
    root = cache_folder(FOLDER) / name
    return [
        f"{shown_name(i)}  {shorten(_origin(root / i).description)}" for i in imports
    ]


def _origin(folder: Path) -> StoreOrigin:
    """Returns what an import was made from, and when."""
    return store_origin(folder, Path(FOLDER, folder.parent.name, folder.name))


def _not_imported(name: str) -> DataError:
    """The error for a dataset without an import, with download links."""
    spec = FEATURE_DATASETS[name]
    listed = "\n".join(f"  {file}" for file in spec.files)
    return DataError(
        "D75",
        f"{spec.title} has not been imported. Download one of\n{listed}",
        f"python -m mmfusion_jax data import FILE --dataset={shown_name(name)}\n"
        f"       without it, --config={shorten(spec.configs[0].split(':')[0])} runs on "
        "embedded data",
    )


def _stored(manifest: ImportManifest, text: str) -> dict[str, str]:
    """Modality -> its name in the store."""
    check_choice("text", text, TEXTS)
    inputs = manifest.splits["train"].inputs
    chosen = {"text": TEXTS[text], "audio": "audio", "video": "video"}
    available = [name for name, stored in TEXTS.items() if stored in inputs]
    if available and text not in available:
        reason = f"{shorten(manifest.file)} has no such text"
        raise _no_text(text, reason, available)
    return {modality: one for modality, one in chosen.items() if one in inputs}


def _no_text(text: str, reason: str, available: Sequence[str]) -> DataError:
    """The error for a file without this kind of text."""
    return DataError(
        "D77",
        f"config.data.text={shown(text)}: {reason}.",
        " or ".join(f"--config.data.text={shorten(one)}" for one in available),
    )


def _check_standardize(modality: str, known: Sequence[str]) -> None:
    """Raises ConfigError for a modality without features to standardize."""
    if modality not in known:
        raise ConfigError(
            "C03",
            f"config.data.standardize={shown(modality)} is not a modality with "
            "features.",
            suggest(modality, known),
        )


def _standardizer(
    train: SplitStats, stored: Mapping[str, str], modality: str
) -> Standardizer:
    """The standardizer of the training split."""
    found = {m: train.inputs[one].moments for m, one in stored.items()}
    known = {m: moments for m, moments in found.items() if moments}
    _check_standardize(modality, list(known))
    moments = known[modality]
    sums = np.array(moments.total), np.array(moments.square)
    return Standardizer.fit([RunningMoments(moments.count, *sums)])


def _digest(manifest: ImportManifest, split: str) -> str:
    """Returns a hash of the examples of a split, as they were imported.

    Of an import of an older version of the library, it is a hash of the file, its
    repairs and the statistics.
    """
    if split in manifest.content:
        return manifest.content[split]
    stats = msgspec.to_builtins(manifest.splits[split])
    return sha256_json([manifest.version, manifest.sha256, manifest.repaired, stats])


def _id_range(
    splits: Mapping[str, SplitStats], stored: Mapping[str, str]
) -> dict[str, tuple[int, int]]:
    """Modality -> minimum and maximum id, for modalities of ids."""
    found = {}
    for modality, one in stored.items():
        stats = [part.inputs[one] for part in splits.values()]
        if any(each.features for each in stats):
            continue
        low = min(each.low or 0 for each in stats)
        found[modality] = int(low), int(max(each.high or 0 for each in stats))
    return found


def _labels(part: SplitStats) -> dict[str, np.ndarray]:
    """The labels of a split, with the polarity of its scores."""
    labels = {
        name: np.array(values, np.float32) for name, values in part.scores.items()
    }
    labels |= {name: np.array(rows, np.int32) for name, rows in part.flags.items()}
    if "score" in labels:
        labels["polarity"] = (np.sign(labels["score"]) + 1).astype(np.int32)
    return labels


def _groups(
    spec: FeatureDatasetSpec, splits: Mapping[str, SplitStats]
) -> dict[str, list[str]]:
    """Split -> its known videos, if no video may be in two splits."""
    if not spec.by_video:
        return {}
    names = videos_of(splits).names
    found = {split: sorted({*part} - {""}) for split, part in names.items()}
    return found if any(found.values()) else {}


def _facts(
    store: Store, manifest: ImportManifest, text: str, standardize: Sequence[str]
) -> dict[str, Any]:
    """The facts about the dataset that go into results."""
    findings = find_problems(manifest)
    warnings = copies(manifest) + findings.remarks + findings.unchecked
    if not manifest.known:
        warnings.append(f"{shorten(manifest.file)}: not a published checksum")
    return {
        "prepared": store.folder.name,
        "sha256": manifest.sha256,
        "license": manifest.license,
        "counts": manifest.counts,
        "repaired": manifest.repaired,
        "dropped": dict(Counter(one.split for one in manifest.dropped)),
        "text": text,
        "standardized": list(standardize),
        "warnings": warnings,
    }


def check_imported(name: str, file: str = "") -> ImportManifest:
    """Returns the manifest of an import after reading every example of it.

    Raises:
        DataError: the dataset has not been imported, or the store is corrupted.
    """
    store, manifest = open_import(find_import(name, file, "--file"), name)
    for split, part in manifest.splits.items():
        records = store.source(split)
        for i in track(range(part.count), part.count, f"reading {split}"):
            records[i]
    return manifest
