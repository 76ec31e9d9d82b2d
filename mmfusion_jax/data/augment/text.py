"""Random text augmentation: synonym replacement and word deletion."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmfusion_jax.data.dataset import Example
from mmfusion_jax.data.media.wordpiece import (
    CONTINUATION,
    read_lines,
    read_vocabulary,
)
from mmfusion_jax.data.preprocessing import pad_or_truncate
from mmfusion_jax.errors import ConfigError, DataError, shown
from mmfusion_jax.option_types import Fraction, NonNegativeInt
from mmfusion_jax.paths import local_path

SYNONYMS = Path(__file__).with_name("synonyms.txt")
"""Groups of common English words, written for this library."""


@dataclasses.dataclass(frozen=True)
class RandomWords:
    """Replaces words by synonyms, then deletes words.

    The words after a deleted one move up. At least one word remains. With a vocabulary,
    pieces such as "##ing" belong to the word before them and are deleted with it, and
    tokens such as [CLS] are never changed; only words of one piece are replaced.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> example = {
        ...     "inputs": {"text": np.arange(6)},
        ...     "masks": {"text": np.ones(6, bool)},
        ... }
        >>> augment = mmf.data.RandomWords("text", delete_prob=0.5, replace_prob=0.0)
        >>> augment(example, np.random.default_rng(0))["masks"]["text"].tolist()
        [True, True, True, False, False, False]

    Attributes:
        modality: Name of the modality: ids (t) int; or, for deletion only, embeddings
            (t f).
        delete_prob: Probability of each word to be deleted.
        replace_prob: Probability of each word with synonyms to be replaced by one of
            them.
        synonyms: Path of a text file; the words of a line, separated by spaces, are
            synonyms. "" uses a list of common English words, which requires a
            vocabulary.
        vocabulary: Path of a text file with one word per line, whose index is its id,
            such as vocab.txt of BERT, or of a weights file beside a vocab.txt; "" if
            the synonyms are ids. Synonyms that are not in it are ignored.
        protected_ids: Ids that are never changed, such as those of [CLS] and [SEP].

    Reference:
        Hetero-Fusion-Net, Sec. 5.2: synonym replacement and random word deletion,
        p = 0.1.
    Deviation:
        The paper gives one p for both; it is used for each. It does not name its
        synonyms; the list of this library was written for it.
    """

    modality: str
    delete_prob: Fraction = 0.1
    replace_prob: Fraction = 0.1
    synonyms: str = ""
    vocabulary: str = ""
    protected_ids: tuple[NonNegativeInt, ...] = ()

    def __post_init__(self):
        where = f"config.data.augmentations.{self.modality}"
        if not (0 <= self.delete_prob <= 1 and 0 <= self.replace_prob <= 1):
            raise ConfigError(
                "C10",
                f"{where}: delete_prob={shown(self.delete_prob)} or "
                f"replace_prob={shown(self.replace_prob)} is out of range.",
                "0 to 1",
            )
        if self.replace_prob and not (self.synonyms or self.vocabulary):
            raise ConfigError(
                "C10",
                f"{where}: replace_prob={shown(self.replace_prob)} requires a "
                "vocabulary, which gives the ids of the synonyms.",
                f"--{where}.vocabulary=FILE, or --{where}.replace_prob=0",
            )

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Augments the modality if present; passes everything else through.

        Raises:
            ConfigError: Words that are not ids cannot be replaced.
            DataError: A file is not readable, or contains no synonyms.
        """
        tokens = example["inputs"][self.modality]
        mask = example["masks"][self.modality]
        if not mask.any():
            return example
        kept = tokens[mask]
        words = self._word_numbers(kept)
        if self.replace_prob:
            kept = self._replaced(kept, words, rng)
        draws = rng.random(words[-1] + 1)
        deleted = draws < self.delete_prob
        free = np.ones(len(draws), bool)
        free[words[self._protected(kept)]] = False
        deleted &= free
        if free.any() and deleted[free].all():
            # The word with the highest draw would be the last to be deleted at a lower
            # rate.
            deleted[np.argmax(np.where(free, draws, -1))] = False
        rows, mask = pad_or_truncate(kept[~deleted[words]], len(tokens))
        return {
            **example,
            "inputs": {**example["inputs"], self.modality: rows},
            "masks": {**example["masks"], self.modality: mask},
        }

    def _word_numbers(self, tokens: np.ndarray) -> np.ndarray:
        """Returns the number of the word that each token belongs to, from 0, (t)."""
        starts = np.ones(len(tokens), bool)
        if self.vocabulary and _are_ids(tokens):
            starts = ~np.isin(tokens, _classified(self.vocabulary)[0])
        # The first token begins a word even if the text is cut within one.
        starts[0] = True
        return np.cumsum(starts) - 1

    def _replaced(
        self, tokens: np.ndarray, words: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Returns the tokens, some words of one token replaced by synonyms."""
        if not _are_ids(tokens):
            where = f"config.data.augmentations.{self.modality}"
            raise ConfigError(
                "C10",
                f"{where}: replace_prob={shown(self.replace_prob)} requires token ids, "
                f"and the text is {tokens.dtype.name} {tokens.shape}.",
                f"--{where}.replace_prob=0",
            )
        table = read_synonyms(self.synonyms, self.vocabulary)
        protected = self._protected(tokens)
        sizes = np.bincount(words)
        ids = tokens.copy()
        for i in np.flatnonzero(rng.random(len(ids)) < self.replace_prob):
            synonyms = table.get(int(ids[i]), ())
            if synonyms and sizes[words[i]] == 1 and not protected[i]:
                ids[i] = synonyms[rng.integers(len(synonyms))]
        return ids

    def _protected(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens that are never changed, (t) bool."""
        if not _are_ids(tokens):
            return np.zeros(len(tokens), bool)
        special = _classified(self.vocabulary)[1] if self.vocabulary else ()
        return np.isin(tokens, [*self.protected_ids, *special])


def _are_ids(tokens: np.ndarray) -> bool:
    """Returns whether tokens are ids rather than embeddings."""
    return np.issubdtype(tokens.dtype, np.integer)


@functools.cache
def _classified(vocabulary: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """Returns the ids of pieces that continue a word, and of [..] but [UNK]."""
    tokens = read_vocabulary(vocabulary)
    later = [i for i, token in enumerate(tokens) if token.startswith(CONTINUATION)]
    special = [
        i
        for i, token in enumerate(tokens)
        if token[:1] == "[" and token[-1:] == "]" and token not in ("[UNK]", "[]")
    ]
    return np.array(later, int), tuple(special)


@functools.cache
def read_synonyms(path: str, vocabulary: str) -> Mapping[int, tuple[int, ...]]:
    """Returns id -> the ids of its synonyms.

    Args:
        path: Path of the synonyms; "" uses those of this library.
        vocabulary: Path of the vocabulary; "" if the synonyms are ids.

    Raises:
        DataError: A file is not readable, or no line has two known words.
    """
    ids = {}
    if vocabulary:
        ids = {word: i for i, word in enumerate(read_vocabulary(vocabulary))}
    table: dict[int, tuple[int, ...]] = {}
    for line in read_lines(local_path("synonyms", path) if path else SYNONYMS):
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
            f"{path or SYNONYMS} contains no synonyms: no line has two known words.",
            "lines such as 'big large huge', and a vocabulary with these words",
        )
    return table
