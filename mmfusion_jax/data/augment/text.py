"""Random text augmentation: synonym replacement and word deletion."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmfusion_jax.data.dataset import Example
from mmfusion_jax.data.preprocessing import pad_or_truncate
from mmfusion_jax.errors import ConfigError, DataError, shorten, shown


@dataclasses.dataclass(frozen=True)
class RandomWords:
    """Replaces words by synonyms, then deletes words.

    The words after a deleted one move up. At least one word remains.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> example = {
        ...     "inputs": {"text": np.arange(6)},
        ...     "masks": {"text": np.ones(6, bool)},
        ... }
        >>> augment = mmf.data.RandomWords("text", delete_prob=0.5)
        >>> augment(example, np.random.default_rng(0))["masks"]["text"].tolist()
        [True, True, True, False, False, False]

    Attributes:
        modality: Name of the modality: ids (t) int; or, for deletion only, embeddings
            (t f).
        delete_prob: Probability of each word to be deleted.
        replace_prob: Probability of each word with synonyms to be replaced by one of
            them.
        synonyms: Path of a text file; the words of a line, separated by spaces, are
            synonyms. Required if `replace_prob` is not 0.
        vocabulary: Path of a text file with one word per line, whose index is its id,
            such as vocab.txt of BERT; "" if the synonyms are ids. Synonyms that are not
            in it are ignored.
        protected_ids: Ids that are never changed, such as those of [CLS] and [SEP].

    Reference:
        Hetero-Fusion-Net, Sec. 5.2: synonym replacement and random word deletion,
        p = 0.1.
    Deviation:
        The paper gives one p for both; it is used for each.
    """

    modality: str
    delete_prob: float = 0.1
    replace_prob: float = 0.0
    synonyms: str = ""
    vocabulary: str = ""
    protected_ids: tuple[int, ...] = ()

    def __post_init__(self):
        where = f"config.data.augmentations.{self.modality}"
        if not (0 <= self.delete_prob <= 1 and 0 <= self.replace_prob <= 1):
            raise ConfigError(
                "C10",
                f"{where}: delete_prob={shown(self.delete_prob)} or "
                f"replace_prob={shown(self.replace_prob)} is out of range.",
                "0 to 1",
            )
        if self.replace_prob and not self.synonyms:
            raise ConfigError(
                "C10",
                f"{where}: replace_prob={shown(self.replace_prob)} requires synonyms.",
                f"--{where}.synonyms=FILE, or --{where}.replace_prob=0",
            )

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Augments the modality if present; passes everything else through.

        Raises:
            DataError: A file is not readable, or contains no synonyms.
        """
        words = example["inputs"][self.modality]
        mask = example["masks"][self.modality]
        if not mask.any():
            return example
        kept = words[mask]
        if self.replace_prob:
            kept = self._replaced(kept, rng)
        draws = rng.random(len(kept))
        deleted = (draws < self.delete_prob) & ~self._protected(kept)
        if deleted.all():
            # The word with the highest draw would be the last to be deleted at a lower
            # rate.
            deleted[np.argmax(draws)] = False
        rows, mask = pad_or_truncate(kept[~deleted], len(words))
        return {
            **example,
            "inputs": {**example["inputs"], self.modality: rows},
            "masks": {**example["masks"], self.modality: mask},
        }

    def _replaced(self, words: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns the words, some of them replaced by synonyms."""
        table = read_synonyms(self.synonyms, self.vocabulary)
        ids = words.copy()
        for i in np.flatnonzero(rng.random(len(ids)) < self.replace_prob):
            synonyms = table.get(int(ids[i]), ())
            if synonyms and int(ids[i]) not in self.protected_ids:
                ids[i] = synonyms[rng.integers(len(synonyms))]
        return ids

    def _protected(self, words: np.ndarray) -> np.ndarray:
        """Words that are never changed, (t) bool."""
        if not np.issubdtype(words.dtype, np.integer):
            return np.zeros(len(words), bool)
        return np.isin(words, self.protected_ids)


@functools.cache
def read_synonyms(path: str, vocabulary: str) -> Mapping[int, tuple[int, ...]]:
    """Returns id -> the ids of its synonyms.

    Raises:
        DataError: A file is not readable, or no line has two known words.
    """
    ids = {}
    if vocabulary:
        ids = {word.strip(): i for i, word in enumerate(_lines(vocabulary))}
    table: dict[int, tuple[int, ...]] = {}
    for line in _lines(path):
        words = line.split()
        if vocabulary:
            group = [ids[word] for word in words if word in ids]
        else:
            group = [int(word) for word in words if word.isdecimal()]
        for one in group:
            others = tuple(other for other in group if other != one)
            if others:
                table[one] = table.get(one, ()) + others
    if not table:
        raise DataError(
            "D15",
            f"{path} contains no synonyms: no line has two known words.",
            "lines such as 'big large huge', and a vocabulary with these words",
        )
    return table


def _lines(path: str) -> list[str]:
    """Returns the lines of a text file."""
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "D15",
            f"{path} is not readable: {shorten(error)}.",
            "specify a UTF-8 text file",
        ) from error
