"""The types `Dataset` and `Example`, and the declarations of loaders."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np

from mmfusion_jax.errors import DataError, join_names, shown
from mmfusion_jax.results.predictor_file import Preprocessing

Example: TypeAlias = dict[str, Any]
"""One example as plain NumPy:

    {"inputs": {modality: (t ...)}, "masks": {modality: (t) bool},
     "labels": {name: scalar}, "weight": float32 1}

Every example of a dataset has the same shapes; shorter clips are padded and masked.
Video may be uint8 pixels 0..255; encoders scale integers themselves.
"""

Augment: TypeAlias = Callable[[Example, np.random.Generator], Example]

RUN_ARGUMENTS = ("fold", "folds", "protocol", "seed", "label")
"""Arguments that a loader may take from the run instead of from `config.data`."""

Loader = TypeVar("Loader", bound=Callable[..., "Dataset"])
_INFO = "loader_info"


class Source(Protocol):
    """A random access sequence of examples; the same index gives the same example.

    It may have a method `content_digest() -> str`, a hash of inputs and masks that does
    not read them, such as one of checksums in a manifest. Without it, examples are read
    for the fingerprint of the data, see `data/fingerprint.py`.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


@dataclasses.dataclass(frozen=True)
class RegressionTarget:
    """The range and meaning of a numeric label.

    Example:
        >>> import mmfusion_jax as mmf
        >>> target = mmf.data.RegressionTarget(-3, 3, family="sentiment")
        >>> target.low, target.high, target.neutral
        (-3, 3, 0.0)

    Attributes:
        low: Minimum of the label.
        high: Maximum of the label.
        neutral: Value between negative and positive.
        family: Usual metrics: "sentiment" (-3..3), "sims" (-1..1), or "plain".
    """

    low: float
    high: float
    neutral: float = 0.0
    family: str = "plain"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset that can be read.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> source = mmf.data.InMemory(
        ...     {"audio": np.ones((2, 4, 3))},
        ...     {"audio": np.ones((2, 4), bool)},
        ...     {"pitch": np.array([0, 1])},
        ... )
        >>> classes = {"pitch": ("low", "high")}
        >>> data = mmf.data.Dataset("tones", "Tones", {"train": source}, classes)
        >>> len(data.source("train")), data.label("train", "pitch").tolist()
        (2, [0, 1])

    Attributes:
        name: The word after the colon of a config, such as "digits".
        title: Its name in results, such as "digits (embedded)".
        sources: Split -> examples; the splits are "train", "valid" and "test". Without
            "valid" no checkpoint is selected and the run takes its last step.
        classes: Label name -> class names, for class labels, (n) int.
        augment: Applied to training examples, with a generator seeded by their position
            in the epoch; None leaves them unchanged.
        labels: Split -> label name -> (n) array, in the order of the source; read from
            the examples where it is not given.
        groups: Split -> its speakers (or videos), for the leakage check; () if they
            are unknown.
        facts: JSON values that go into every result: version, fingerprint, license,
            counts, warnings.
        values: Label name -> its meaning, for numeric labels, (n) float.
        flags: Label name -> names of the flags, for multilabel targets, (n j) int 0 or
            1.
        ids: Modality -> minimum and maximum id in any split, for sequences of ids;
            read from the examples where it is not given.
        example_ids: Split -> id of every example, in the order of the source, unique
            in its split: names of the data, such as "video_7/3", which an example keeps
            in every fold, so that predictions of two runs can be matched; by default
            "SPLIT/INDEX".
        preprocessing: How examples are made from files, which is stored with a run: a
            trained model needs it for new data.
    """

    name: str
    title: str
    sources: Mapping[str, Source]
    classes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    augment: Augment | None = None
    labels: Mapping[str, Mapping[str, np.ndarray]] = dataclasses.field(
        default_factory=dict
    )
    groups: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    values: Mapping[str, RegressionTarget] = dataclasses.field(default_factory=dict)
    flags: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    ids: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    example_ids: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    preprocessing: Preprocessing = dataclasses.field(default_factory=Preprocessing)

    def __post_init__(self):
        check_disjoint(self.groups)

    def source(self, split: str) -> Source:
        """Returns the examples of `split`, in a fixed order."""
        return self.sources[split]

    def label(self, split: str, name: str) -> np.ndarray:
        """Label `name` of every example of `split`, (n)."""
        if split in self.labels:
            return np.asarray(self.labels[split][name])
        source = self.sources[split]
        return np.array([_label(source[i], name, split, i) for i in range(len(source))])

    def example_id_list(self, split: str) -> list[str]:
        """Returns the id of every example of `split`, in the order of the source."""
        if split in self.example_ids:
            return [str(name) for name in self.example_ids[split]]
        return default_ids(split, len(self.sources[split]))

    def id_range(self, modality: str) -> tuple[int, int]:
        """Returns the minimum and maximum id of `modality` over all splits.

        Args:
            modality: Sequences of ids, (t) int.
        """
        if modality in self.ids:
            return self.ids[modality]
        low, high = 0, 0
        for source in self.sources.values():
            for i in range(len(source)):
                example = source[i]
                ids = example["inputs"][modality][example["masks"][modality]]
                if len(ids):
                    low, high = min(low, int(ids.min())), max(high, int(ids.max()))
        return low, high


def _label(example: Any, name: str, split: str, index: int) -> Any:
    """Returns a label of an example.

    Raises:
        DataError: It is not an example with this label.
    """
    labels = example.get("labels") if isinstance(example, Mapping) else None
    if isinstance(labels, Mapping) and name in labels:
        return labels[name]
    raise DataError(
        "D25",
        f"example {index} of split {shown(split)} does not have the label "
        f"{shown(name)}.",
        "see `Example` in mmfusion_jax/data/dataset.py",
    )


def is_ids(values: np.ndarray) -> bool:
    """Returns whether the values of one example are ids, (t) int, not features."""
    return values.ndim == 1 and np.issubdtype(values.dtype, np.integer)


def default_ids(split: str, count: int) -> list[str]:
    """Returns the ids of examples without names, which are those of one fold only."""
    return [f"{split}/{index}" for index in range(count)]


def unique_ids(names: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
    """Returns the ids of examples from names in a file, for `Dataset.example_ids`.

    Args:
        names: Split -> name of every example. A split in which there are none, or in
            which one occurs twice, is left out: its examples have the default ids.
    """
    ids = {split: [str(name) for name in part] for split, part in names.items()}
    return {s: part for s, part in ids.items() if part and len({*part}) == len(part)}


def names_files(options: Mapping[str, Any]) -> bool:
    """Returns whether the options of a dataset name its files."""
    return bool(options.get("data_dir") or options.get("file"))


@dataclasses.dataclass(frozen=True)
class LoaderInfo:
    """Declarations of a dataset loader.

    Attributes:
        takes: Arguments out of `RUN_ARGUMENTS` that the function has.
        outline: Takes the same options and returns the shapes and classes without
            reading a file; None if they are not known in advance.
        has_files: Options -> whether the user has files of the dataset or names some.
    """

    takes: tuple[str, ...] = ()
    outline: Callable[..., Dataset] | None = None
    has_files: Callable[[Mapping[str, Any]], bool] = names_files


def dataset_loader(
    *,
    takes: Sequence[str] = (),
    outline: Callable[..., Dataset] | None = None,
    has_files: Callable[[Mapping[str, Any]], bool] | None = None,
) -> Callable[[Loader], Loader]:
    """Decorates a function that loads a dataset with its `LoaderInfo`.

    Example:
        >>> import mmfusion_jax as mmf
        >>> @mmf.data.dataset_loader(takes=("seed",))
        ... def load_tones(*, noise: float = 1.0, seed: int = 0) -> mmf.data.Dataset:
        ...     return mmf.data.Dataset("tones", f"Tones, noise {noise}", {})
        >>> load_tones(noise=0.5).title
        'Tones, noise 0.5'

    Args:
        takes: Names out of `RUN_ARGUMENTS`, which do not come from `config.data`.
        outline: The same dataset without its files.
        has_files: Options -> whether files are there; None tests `data_dir` and `file`.

    Raises:
        ValueError: `takes` has a name that is not in `RUN_ARGUMENTS`.
    """
    if isinstance(takes, str):
        raise ValueError(f"takes={shown(takes)} must be a tuple: ({shown(takes)},).")
    if unknown := [name for name in takes if name not in RUN_ARGUMENTS]:
        raise ValueError(
            f"takes={shown(unknown)} is unknown; known: {join_names(RUN_ARGUMENTS)}."
        )
    info = LoaderInfo(tuple(takes), outline, has_files or names_files)

    def decorate(function: Loader) -> Loader:
        # On the function itself, so that a loader of another package declares it too,
        # without a table.
        setattr(function, _INFO, info)
        return function

    return decorate


def loader_info(function: Callable[..., Any]) -> LoaderInfo:
    """Returns the `LoaderInfo` of a loader, the default one if it declares none."""
    return getattr(function, _INFO, LoaderInfo())


class LabeledSource(Source, Protocol):
    """A source whose labels are known without reading its examples."""

    @property
    def labels(self) -> Mapping[str, np.ndarray]: ...


def subject_dataset(
    name: str,
    title: str,
    sources: Mapping[str, LabeledSource],
    subjects: Mapping[str, Sequence[str]],
    classes: Mapping[str, tuple[str, ...]],
    license: str,
    example_ids: Mapping[str, Sequence[str]],
) -> Dataset:
    """Returns a dataset with the subjects of each split.

    Args:
        name: The word after the colon of a config.
        title: Its name in results.
        sources: Split -> examples with their labels.
        subjects: Split -> its subjects.
        classes: Label name -> class names.
        license: License of the data.
        example_ids: Split -> id of every example, of subject and window.

    Raises:
        DataError: A subject is in two splits.
    """
    return Dataset(
        name,
        title,
        sources,
        classes,
        labels={split: source.labels for split, source in sources.items()},
        groups=subjects,
        facts={
            "license": license,
            "counts": {split: len(source) for split, source in sources.items()},
            "subjects": {split: list(names) for split, names in subjects.items()},
        },
        example_ids=example_ids,
    )


def check_disjoint(groups: Mapping[str, Sequence[str]]) -> None:
    """Raises DataError if a speaker (or video) is in two splits."""
    seen: dict[str, str] = {}
    for split, names in groups.items():
        for name in sorted(set(names)):
            if name in seen:
                raise DataError(
                    "D10",
                    f"{shown(name)} is in splits {shown(seen[name])} and "
                    f"{shown(split)} (data leakage).",
                    "assign all examples of a speaker or file to one split",
                )
            seen[name] = split
