"""Transcripts of clips as ids of tokens."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mmfusion_jax.data.media.labels_csv import LabelRow
from mmfusion_jax.data.media.transcripts import TranscriptCleaner
from mmfusion_jax.data.media.wordpiece import WordPiece, word_vocabulary
from mmfusion_jax.results.predictor_file import Tokenizer


def cleaned_row(row: LabelRow, cleaner: TranscriptCleaner, lowercase: bool) -> LabelRow:
    """Returns a row with its cleaned transcript."""
    text = row.text.lower() if lowercase else row.text
    return dataclasses.replace(row, text=cleaner(text))


def train_tokenizer(
    vocabulary: Sequence[str], train: Sequence[LabelRow], lowercase: bool
) -> WordPiece:
    """Returns the tokenizer of a vocabulary, or of the training transcripts."""
    texts = [row.text for row in train]
    return WordPiece(vocabulary or word_vocabulary(texts, lowercase), lowercase)


def stored_tokenizer(
    tokenizer: WordPiece, length: int, cleaner: TranscriptCleaner
) -> Tokenizer:
    """Returns a tokenizer as a file stores it."""
    return Tokenizer(
        list(tokenizer.vocabulary),
        length,
        tokenizer.lowercase,
        dataclasses.asdict(cleaner),
    )


def transcript_ids(
    tokenizer: WordPiece, splits: Mapping[str, Sequence[LabelRow]], length: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns split -> ids (n length) and mask (n length) of the transcripts."""
    encoded = {
        split: [tokenizer(row.text, length) for row in rows]
        for split, rows in splits.items()
    }
    return {
        split: (np.stack([ids for ids, _ in part]), np.stack([m for _, m in part]))
        for split, part in encoded.items()
    }
