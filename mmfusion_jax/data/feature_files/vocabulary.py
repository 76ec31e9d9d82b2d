"""Word ids for files whose text is words."""

from collections.abc import Mapping, Sequence

import numpy as np

from mmfusion_jax.data.feature_files.padded_sequences import Sequences

UNKNOWN = 0
"""Id of a word that the training split does not have."""

UNKNOWN_TOKEN = "[UNK]"
"""Token of this id in the vocabulary of a tokenizer, whose indices are the ids."""


def build_vocabulary(texts: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Returns the words of the training split in alphabetical order.

    Example:
        >>> from mmfusion_jax.data.feature_files.vocabulary import build_vocabulary
        >>> build_vocabulary([["so", "good"], ["so"]])
        ('good', 'so')

    Args:
        texts: Words of each example of the training split.
    """
    return tuple(sorted({word for words in texts for word in words}))


def encode(words: Sequence[str], ids: Mapping[str, int]) -> np.ndarray:
    """Returns the id of each word, (t) int32; `UNKNOWN` for a word without one."""
    return np.array([ids.get(word, UNKNOWN) for word in words], np.int32)


def with_word_ids(
    splits: Mapping[str, Sequences],
) -> tuple[dict[str, Sequences], tuple[str, ...]]:
    """Returns the splits with the input "words", if they have words as text.

    The ids are 1, 2, ... in alphabetical order of the words of the training split; a
    word of another split that is not among them has the id 0.

    Returns:
        The splits, and the words in the order of their ids, from 1; () if the text is
        not words.
    """
    if not splits["train"].tokens:
        return dict(splits), ()
    words = build_vocabulary(splits["train"].tokens)
    ids = {word: number for number, word in enumerate(words, UNKNOWN + 1)}
    found = {}
    for split, part in splits.items():
        encoded = [encode(tokens, ids) for tokens in part.tokens]
        unknown = sum(int((row == UNKNOWN).sum()) for row in encoded)
        total = sum(map(len, encoded))
        note = f"{len(words)} words of the training split have ids"
        if split != "train":
            note = f"{unknown:d} of {total:d} words are not in the training split: id 0"
        found[split] = Sequences(
            {"words": encoded, **part.inputs},
            part.labels,
            part.ids,
            part.texts,
            [*part.notes, note],
            part.tokens,
        )
    return found, words
