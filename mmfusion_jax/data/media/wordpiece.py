"""Token ids of transcripts: the vocabulary and the WordPiece tokenizer of BERT."""

import dataclasses
import functools
import io
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mmfusion_jax.data.preprocessing import pad_or_truncate
from mmfusion_jax.data.storage.file_checksums import FileState, file_state
from mmfusion_jax.errors import DataError, shorten, shown
from mmfusion_jax.paths import local_path
from mmfusion_jax.safe_load.regular_file import open_regular

VOCABULARY = "vocab.txt"
WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
NOT_A_FILE = ("", "random", "required")
"""Values of `config.model.encoders.text.weights`, which `config.data.vocabulary` may
follow, that do not name a file."""

PAD, UNKNOWN, FIRST, LAST = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
CONTINUATION = "##"
_LONGEST_WORD = 100  # characters, as in BERT's code


def read_vocabulary(path: str) -> tuple[str, ...]:
    """Returns the tokens of a vocabulary, whose index is their id.

    Args:
        path: Text file with one token per line; or a folder with a `vocab.txt`; or a
            weights file, such as `model.safetensors`, with a `vocab.txt` beside it.

    Raises:
        DataError: The file is not given or not readable.
    """
    if path in NOT_A_FILE:
        raise DataError(
            "D15",
            f"a vocabulary is required for token ids, but the path is {shown(path)}.",
            "--config.data.vocabulary=FILE, such as vocab.txt of BERT; "
            'python -c "from transformers import BertTokenizer; '
            "BertTokenizer.from_pretrained('bert-base-uncased').save_vocabulary("
            "'.')\" writes vocab.txt",
        )
    file = local_path("vocabulary", path)
    if file.is_dir():
        file = file / VOCABULARY
    elif file.suffix in WEIGHTS_SUFFIXES:
        file = file.with_name(VOCABULARY)
    return _read_vocabulary(file, file_state(file) if file.exists() else None)


@functools.lru_cache(maxsize=8)
def _read_vocabulary(file: Path, state: FileState | None) -> tuple[str, ...]:
    del state  # another file of the same name is read again
    return tuple(word.strip() for word in read_lines(file))


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a text file.

    Raises:
        DataError: It is not a UTF-8 text file.
    """
    try:
        with (
            open_regular(path) as stream,
            io.TextIOWrapper(stream, encoding="utf-8") as file,
        ):
            return file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "D15",
            f"{path} is not readable: {shorten(error)}.",
            "specify a UTF-8 text file",
        ) from error


def word_vocabulary(texts: Iterable[str], lowercase: bool = True) -> tuple[str, ...]:
    """Returns a vocabulary of the words of some texts, sorted, after special tokens."""
    words = {word for text in texts for word in split_words(text, lowercase)}
    return (PAD, UNKNOWN, FIRST, LAST, *sorted(words))


@dataclasses.dataclass(frozen=True)
class WordPiece:
    """Splits a text into the longest pieces of a vocabulary.

    A word that cannot be split is [UNK]. [CLS] and [SEP] are put around the text if the
    vocabulary has them.

    Attributes:
        vocabulary: Tokens, whose index is their id; pieces after the first of a word
            start with "##".
        lowercase: Lower-case the text and strip accents, as for BERT uncased.

    Reference:
        Devlin et al. 2019; the tokenizer of the transformers library.
    """

    vocabulary: Sequence[str]
    lowercase: bool = True

    def __post_init__(self):
        if UNKNOWN not in self.ids:
            raise DataError(
                "D15",
                f"the vocabulary of {len(self.vocabulary)} tokens lacks "
                f"{shown(UNKNOWN)}.",
                "use the vocab.txt of BERT, or add this line",
            )

    @functools.cached_property
    def ids(self) -> Mapping[str, int]:
        """Token -> its id, the first one of equal tokens."""
        tokens = list(enumerate(self.vocabulary))
        return {token: i for i, token in reversed(tokens)}

    def __call__(self, text: str, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids of a text, truncated or padded with 0.

        Args:
            text: The text; "" is a missing text, without any token.
            length: Number of ids, with [CLS] and [SEP].

        Returns:
            Ids (length) int32 and mask (length) bool.
        """
        words = split_words(text, self.lowercase)
        pieces = [piece for word in words for piece in self._pieces(word)]
        before = [self.ids[FIRST]] if FIRST in self.ids else []
        after = [self.ids[LAST]] if LAST in self.ids else []
        room = max(length - len(before) - len(after), 0)
        ids = [*before, *pieces[:room], *after] if pieces else []
        return pad_or_truncate(np.array(ids, np.int32), length)

    def _pieces(self, word: str) -> list[int]:
        """Returns the ids of the pieces of a word."""
        unknown = [self.ids[UNKNOWN]]
        if len(word) > _LONGEST_WORD:
            return unknown
        pieces, start = [], 0
        while start < len(word):
            prefix = CONTINUATION if start else ""
            ends = range(len(word), start, -1)
            found = (e for e in ends if prefix + word[start:e] in self.ids)
            end = next(found, None)
            if end is None:
                return unknown
            pieces.append(self.ids[prefix + word[start:end]])
            start = end
        return pieces


def split_words(text: str, lowercase: bool = True) -> list[str]:
    """Returns the words and punctuation marks of a text, as BERT's tokenizer does."""
    text = "".join(_cleaned(unicodedata.normalize("NFC", text)))
    words = []
    for word in text.split():
        if lowercase:
            decomposed = unicodedata.normalize("NFD", word.lower())
            word = "".join(c for c in decomposed if unicodedata.category(c) != "Mn")
        words += "".join(_spaced(c) if is_punctuation(c) else c for c in word).split()
    return words


def is_punctuation(character: str) -> bool:
    """Returns whether a character is punctuation, or an ASCII symbol such as "$"."""
    if character.isascii():
        return character.isprintable() and not (character.isalnum() or character == " ")
    return unicodedata.category(character).startswith("P")


def _cleaned(text: str) -> Iterator[str]:
    """Yields the characters without control characters, and spaces around CJK."""
    for character in text:
        if character.isspace():
            yield " "
        elif character == "\ufffd" or unicodedata.category(character)[0] == "C":
            continue
        else:
            yield _spaced(character) if _is_cjk(character) else character


def _spaced(character: str) -> str:
    """Returns a character between spaces."""
    return " " + character + " "


_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def _is_cjk(character: str) -> bool:
    """Returns whether a character is a Chinese one, which BERT takes as a word."""
    return any(low <= ord(character) <= high for low, high in _CJK)
