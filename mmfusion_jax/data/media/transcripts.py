"""Cleans transcripts: punctuation, stop words, lemmas."""

import dataclasses
import functools
import importlib
import re
from collections.abc import Callable

from mmfusion_jax.errors import missing_dependency

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_CLITIC = re.compile("['\u2019](?:d|ll|m|re|s|ve)$", re.IGNORECASE)
_APOSTROPHES = re.compile("['\u2019]")


@dataclasses.dataclass(frozen=True)
class TranscriptCleaner:
    """Removes punctuation and stop words, and replaces words by their lemmas.

    Attributes:
        remove_punctuation: Keep words and numbers only, without clitics such as "'s"
            and without apostrophes.
        remove_stop_words: Remove the English stop words of scikit-learn; a transcript
            of stop words only keeps them, as it would be empty.
        lemmatize: Replace English words by their lemmas, of simplemma.

    Reference:
        OF-CMAER-CAT, Sec. 4.1.
    Deviation:
        The paper names neither its stop words nor its lemmatizer. "Non-rhythmic
        tokens" are not defined and not removed.
    """

    remove_punctuation: bool = False
    remove_stop_words: bool = False
    lemmatize: bool = False

    def __call__(self, text: str) -> str:
        """Returns the words of a text, separated by spaces.

        Raises:
            MissingDependencyError: simplemma is not installed.
        """
        if not (self.remove_punctuation or self.remove_stop_words or self.lemmatize):
            return text
        words = _WORD.findall(text) if self.remove_punctuation else text.split()
        if self.remove_punctuation:
            words = [_plain(word) for word in words]
        if self.remove_stop_words:
            words = [word for word in words if not _is_stop_word(word)] or words
        if self.lemmatize:
            lemma = import_lemmatizer()
            words = [lemma(word, lang="en") for word in words]
        return " ".join(words)


def _is_stop_word(word: str) -> bool:
    """Returns whether a word is a stop word, with or without punctuation around it."""
    matched = _WORD.search(word.lower())
    return matched is not None and _plain(matched[0]) in _stop_words()


def _plain(word: str) -> str:
    """Returns a word without clitic and apostrophes."""
    return _APOSTROPHES.sub("", _CLITIC.sub("", word))


@functools.cache
def _stop_words() -> frozenset[str]:
    """Returns the English stop words of scikit-learn, whose import takes a second."""
    text = importlib.import_module("sklearn.feature_extraction.text")
    return frozenset(text.ENGLISH_STOP_WORDS)


def import_lemmatizer() -> Callable[..., str]:
    """Imports simplemma, or raises the error that names the extra."""
    try:
        return importlib.import_module("simplemma").lemmatize
    except ImportError as error:
        raise missing_dependency("simplemma", "text", "lemmatizing words") from error
