"""Random changes of text: synonyms, and words left out."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmfusion_jax.data.dataset import Example
from mmfusion_jax.data.preprocessing import pad_or_truncate
from mmfusion_jax.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class RandomWords:
    """Replaces words by synonyms, then leaves words out.

    What follows a word that is left out moves up. One word stays at least.

    Attributes:
        modality: ids (t) int; (t 2), of which the first column is the id; or, for
            leaving out alone, vectors (t f).
        delete_prob: chance of each word to be left out.
        replace_prob: chance of each word that has synonyms to be replaced by one of
            them.
        synonyms: a text file; the words of a line, parted by blanks, stand for each
            other. Needed where `replace_prob` is not 0.
        vocabulary: a text file with a word in every line, whose number from 0 is its
            id, such as BERT's vocab.txt; "": the synonyms are ids already. Words
            that it lacks are passed over.
        protected_ids: ids that stay, such as those of [CLS] and [SEP].

    Reference:
        Hetero-Fusion-Net, Sec. 5.2: synonym replacement and random word deletion,
        p = 0.1.
    Deviation:
        One p is given for both; we take it for each.
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
                f"{where}: delete_prob={self.delete_prob} or "
                f"replace_prob={self.replace_prob} is not between 0 and 1.",
            )
        if self.replace_prob and not self.synonyms:
            raise ConfigError(
                "C10",
                f"{where}: replace={self.replace_prob} needs a table of synonyms.",
                f"--{where}.synonyms=FILE, or replace=0",
            )

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Changes the modality, unless it is missing; everything else passes.

        Raises:
            DataError: a table cannot be read, or holds no synonyms.
        """
        words = example["inputs"][self.modality]
        mask = example["masks"][self.modality]
        if not mask.any():
            return example
        kept = words[mask]
        if self.replace_prob:
            kept = self._replaced(kept, rng)
        draws = rng.random(len(kept))
        out = (draws < self.delete_prob) & ~self._protected(kept)
        if out.all():
            out[np.argmax(draws)] = False
        rows, mask = pad_or_truncate(kept[~out], len(words))
        return {
            **example,
            "inputs": {**example["inputs"], self.modality: rows},
            "masks": {**example["masks"], self.modality: mask},
        }

    def _replaced(self, words: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The words, some of them as synonyms."""
        table = read_synonyms(self.synonyms, self.vocabulary)
        words = words.copy()
        ids = words if words.ndim == 1 else words[:, 0]
        for place in np.flatnonzero(rng.random(len(ids)) < self.replace_prob):
            known = table.get(int(ids[place]), ())
            if known and int(ids[place]) not in self.protected_ids:
                ids[place] = known[rng.integers(len(known))]
        return words

    def _protected(self, words: np.ndarray) -> np.ndarray:
        """Which words must stay, (t) bool."""
        if not np.issubdtype(words.dtype, np.integer):
            return np.zeros(len(words), bool)
        return np.isin(words if words.ndim == 1 else words[:, 0], self.protected_ids)


@functools.cache
def read_synonyms(path: str, vocabulary: str) -> Mapping[int, tuple[int, ...]]:
    """Id -> the ids that may stand for it.

    Raises:
        DataError: a file cannot be read, or no line has two known words.
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
            f"{path} holds no synonyms: no line has two known words.",
            "lines such as 'big large huge', and a vocabulary that has these words",
        )
    return table


def _lines(path: str) -> list[str]:
    """The lines of a text file."""
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "D15", f"{path} cannot be read: {error}.", "name a UTF-8 text file"
        ) from error
