"""Token ids of transcripts: the vocabulary and the tokenizer of BERT."""

import numpy as np
import pytest

from mmfusion_jax.data.media.wordpiece import (
    WordPiece,
    read_vocabulary,
    split_words,
    word_vocabulary,
)
from mmfusion_jax.errors import DataError

TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "play", "##ing", "##ed", "cafe", "!", "$")


def ids(text, length=9, **options):
    values, mask = WordPiece(TOKENS, **options)(text, length)
    assert values.dtype == np.int32 and len(values) == len(mask) == length
    assert not values[~mask].any()
    return values[mask].tolist()


def test_the_longest_pieces_are_taken():
    assert ids("Playing played!") == [2, 4, 5, 4, 6, 8, 3]
    assert ids("play cards") == [2, 4, 1, 3]
    assert ids("playx") == [2, 1, 3]  # a word that does not split is one [UNK]
    assert ids("x" * 101) == [2, 1, 3]


def test_accents_case_and_symbols():
    assert ids("CAF\u00c9$") == [2, 7, 9, 3]
    assert ids("Cafe cafe", lowercase=False) == [2, 1, 7, 3]
    assert split_words("a\x00b\tc\u4f60d") == ["ab", "c", "\u4f60", "d"]
    assert split_words("don't -- stop") == ["don", "'", "t", "-", "-", "stop"]


def test_long_texts_are_truncated_before_the_end_token():
    assert ids("play " * 9, 5) == [2, 4, 4, 4, 3]


def test_a_missing_text_is_masked():
    assert ids("") == [] and ids(" \n") == []


def test_a_vocabulary_of_words():
    tokens = word_vocabulary(["Green now!", "at now"])
    assert tokens == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "!", "at", "green", "now")
    assert WordPiece(tokens)("green Please", 6)[0].tolist() == [2, 6, 1, 3, 0, 0]
    assert WordPiece(("[UNK]", "a"))("a b", 3)[0].tolist() == [1, 0, 0]


def test_the_vocabulary_is_beside_the_weights(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    for name in ("", "vocab.txt", "model.safetensors", "pytorch_model.bin"):
        assert read_vocabulary(str(tmp_path / name)) == TOKENS


@pytest.mark.parametrize("path", ["", "required", "random"])
def test_a_vocabulary_that_is_not_given_is_named(path):
    said = "D15.*a vocabulary is required.*\\s.*config.data.vocabulary=FILE"
    with pytest.raises(DataError, match=said):
        read_vocabulary(path)


def test_files_that_are_not_a_vocabulary_are_named(tmp_path):
    with pytest.raises(DataError, match=r"vocab\.txt does not exist"):
        read_vocabulary(str(tmp_path / "model.safetensors"))
    with pytest.raises(DataError, match=r"of 1 tokens lacks '\[UNK\]'"):
        WordPiece(("a",))
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="D15.*is not readable"):
        read_vocabulary(str(tmp_path))


@pytest.mark.slow
def test_ids_are_those_of_the_transformers_library(real_data):
    transformers = pytest.importorskip("transformers")
    path = real_data / "text_assets" / "bert_base_uncased_vocab.txt"
    if not path.is_file():
        pytest.skip(f"{path} does not exist")
    reference = transformers.BertTokenizer(str(path))
    tokenizer = WordPiece(read_vocabulary(str(path)))
    for text in (
        "\u00dcber-caf\u00e9 na\u00efve\tfoo\x00bar \u4f60\u597dworld $5.00 a_b ~x",
        "e\u0301\u0301 \u0130stanbul",
        "\u201cquotes\u201d \u2014 dash\u2026 \u00bd \u00b2",
        "unbelievably, it's the antidisestablishmentarianism of 1984!",
    ):
        values, mask = tokenizer(text, 128)
        assert values[mask].tolist() == reference(text)["input_ids"]
