"""What training needs to know of a data set, and what one example looks like."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np

from mmfusion_jax.errors import DataError

Example: TypeAlias = dict[str, Any]
"""One example as plain NumPy:

    {"inputs": {modality: (t ...)}, "masks": {modality: (t) bool},
     "labels": {name: scalar}, "weight": float32 1}

Every example of a data set has the same shapes; shorter clips are padded and masked.
Video may be uint8 pixels 0..255; encoders bring integers to their own scale.
"""

Augment: TypeAlias = Callable[[Example, np.random.Generator], Example]

RUN_ARGUMENTS = ("fold", "folds", "protocol", "seed", "label")
"""Arguments that a loader may take from the run instead of from `config.data`."""

Loader = TypeVar("Loader", bound=Callable[..., "Dataset"])
_INFO = "loader_info"


class Source(Protocol):
    """A random access sequence of examples; the same index gives the same example."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


@dataclasses.dataclass(frozen=True)
class RegressionTarget:
    """What a label that is a number means.

    Attributes:
        low: the least value a label has.
        high: the greatest value.
        neutral: between negative and positive.
        family: whose scores are usual: "sentiment" (-3..3), "sims" (-1..1), or "plain".
    """

    low: float
    high: float
    neutral: float = 0.0
    family: str = "plain"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set that is ready to be read.

    Attributes:
        name: the word after the colon of a config, such as "digits".
        title: how results name it, such as "digits (embedded)".
        sources: split -> examples; the splits are "train", "valid" and "test". A set
            without "valid" cannot choose a step and runs to the end.
        classes: label name -> class names, for labels that are classes, (n) int.
        augment: applied to training examples, with the generator of their place in
            the epoch; None leaves them as they are.
        labels: split -> label name -> (n) array, in the order of the source; read from
            the examples where it is not given.
        groups: split -> the speakers (or videos) in it, for the leak check; () where
            nothing is known.
        facts: JSON values that go into every result: version, fingerprint, licence,
            counts, warnings.
        values: label name -> its meaning, for labels that are numbers, (n) float.
        flags: label name -> names of the flags, for labels that are several yes or no
            at once, (n j) int 0 or 1.
        ids: modality -> the smallest and the largest id in any split, for sequences of
            ids; read from the examples where it is not given.
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

    def __post_init__(self):
        check_disjoint(self.groups)

    def source(self, split: str) -> Source:
        """The examples of `split`, in a fixed order."""
        return self.sources[split]

    def label(self, split: str, name: str) -> np.ndarray:
        """Label `name` of every example of `split`, (n)."""
        if split in self.labels:
            return np.asarray(self.labels[split][name])
        source = self.sources[split]
        return np.array([source[i]["labels"][name] for i in range(len(source))])

    def id_range(self, modality: str) -> tuple[int, int]:
        """The smallest and the largest id of `modality` in any split.

        Args:
            modality: sequences of ids, (t) int, or (t 2) with those of segments behind.
        """
        if modality in self.ids:
            return self.ids[modality]
        low, high = 0, 0
        for source in self.sources.values():
            for i in range(len(source)):
                example = source[i]
                ids = example["inputs"][modality][example["masks"][modality]]
                ids = ids if ids.ndim == 1 else ids[:, 0]
                if len(ids):
                    low, high = min(low, int(ids.min())), max(high, int(ids.max()))
        return low, high


def is_ids(values: np.ndarray) -> bool:
    """Whether the values of one example, (t ...), are ids and no features or pixels.

    Ids are (t), or (t 2) with those of segments behind.
    """
    shaped = values.ndim == 1 or values.ndim == 2 and values.shape[1] == 2
    return shaped and np.issubdtype(values.dtype, np.integer)


def names_files(options: Mapping[str, Any]) -> bool:
    """Whether the options of a data set name its files."""
    return bool(options.get("data_dir") or options.get("file"))


@dataclasses.dataclass(frozen=True)
class LoaderInfo:
    """What a function that loads a data set declares about itself.

    Attributes:
        takes: those of `RUN_ARGUMENTS` that the function has an argument for.
        outline: takes the same options and returns the shapes and classes without
            reading a file; None if they are not known in advance.
        has_files: options -> whether the user has files of the data set or names some.
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
    """Decorates a function that loads a data set with its `LoaderInfo`.

    Args:
        takes: names out of `RUN_ARGUMENTS`, which do not come from `config.data`.
        outline: the same data set without its files.
        has_files: options -> whether files are there; None tests `data_dir` and `file`.

    Raises:
        ValueError: `takes` has a name that is not in `RUN_ARGUMENTS`.
    """
    if unknown := [name for name in takes if name not in RUN_ARGUMENTS]:
        raise ValueError(
            f"takes={unknown} is unknown; known: {', '.join(RUN_ARGUMENTS)}."
        )
    info = LoaderInfo(tuple(takes), outline, has_files or names_files)

    def decorate(function: Loader) -> Loader:
        setattr(function, _INFO, info)
        return function

    return decorate


def loader_info(function: Callable[..., Any]) -> LoaderInfo:
    """The `LoaderInfo` of a function; that of a plain function is the default."""
    return getattr(function, _INFO, LoaderInfo())


class LabeledSource(Source, Protocol):
    """A source that knows its labels without reading its examples."""

    @property
    def labels(self) -> Mapping[str, np.ndarray]: ...


def subject_dataset(
    name: str,
    title: str,
    sources: Mapping[str, LabeledSource],
    people: Mapping[str, Sequence[str]],
    classes: Mapping[str, tuple[str, ...]],
    licence: str,
) -> Dataset:
    """A data set of which it is known who is in which split.

    Args:
        name: the word after the colon of a config.
        title: how results name it.
        sources: split -> examples with their labels.
        people: split -> who is in it.
        classes: label name -> class names.
        licence: of the data.

    Raises:
        DataError: somebody is in two splits.
    """
    return Dataset(
        name,
        title,
        sources,
        classes,
        labels={split: source.labels for split, source in sources.items()},
        groups=people,
        facts={
            "licence": licence,
            "counts": {split: len(source) for split, source in sources.items()},
            "people": {split: list(names) for split, names in people.items()},
        },
    )


@dataclasses.dataclass(frozen=True)
class Subset:
    """Some examples of a source, in the order given."""

    source: Source
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        return self.source[int(self.indices[index])]


def check_disjoint(groups: Mapping[str, Sequence[str]]) -> None:
    """Raises DataError if a speaker (or video) stands in two splits."""
    seen: dict[str, str] = {}
    for split, names in groups.items():
        for name in sorted(set(names)):
            if name in seen:
                raise DataError(
                    "D10",
                    f"{name!r} is in split {seen[name]!r} and in split {split!r}: "
                    "scores would measure memory, not skill.",
                    "give every speaker to one split only",
                )
            seen[name] = split
