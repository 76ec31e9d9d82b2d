"""Feature files in every layout are read into the same sequences, or rejected."""

import os
import pickle

import numpy as np
import pytest
from feature_files import (
    COUNTS,
    STEPS,
    WIDTHS,
    clips,
    lengths,
    mmim,
    mmsa,
    mult,
    npz,
    rows,
    scores,
    write,
    write_mmim,
)

from mmfusion_jax.data.feature_files.checksums import PUBLISHED_FILES
from mmfusion_jax.data.feature_files.findings import find_problems
from mmfusion_jax.data.feature_files.importer import summarize_file
from mmfusion_jax.data.feature_files.reader import MMIM_FILES, read_source
from mmfusion_jax.errors import DataError

UNUSED = "entries that are not read: annotations, classification_labels"


def check(source, layout, names=tuple(STEPS), aligned=False):
    """Every example has its own steps and nothing else."""
    assert source.layout == layout and len(source.sha256) == 64
    assert list(source.splits) == list(COUNTS)
    for split, part in source.splits.items():
        assert len(part) == COUNTS[split]
        for name in names:
            own = lengths(split, "text" if aligned else name)
            for got, want in zip(
                part.inputs[name], rows(split, name, own), strict=True
            ):
                assert got.dtype == np.float32
                np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("aligned", [True, False])
def test_mmsa(tmp_path, protocol, aligned):
    file = write(tmp_path / "x.pkl", mmsa(aligned=aligned, sims=True), protocol)
    source = read_source(file)
    check(source, f"mmsa_{'' if aligned else 'un'}aligned", aligned=aligned)
    train = source.splits["train"]
    np.testing.assert_array_equal(train.labels["score"], scores("train"))
    for name in ("text", "audio", "video"):
        got = train.labels[f"score_{name}"]
        np.testing.assert_array_equal(got, scores("train")[::-1])
    pieces = list(train.inputs["pieces"])
    assert [len(p) for p in pieces] == lengths("train", "text").tolist()
    assert pieces[0].dtype == np.int32 and pieces[0].all()
    assert train.ids == tuple(clips("train")) and train.texts[0] == "très bien 0"
    assert train.notes == [UNUSED] and not source.splits["test"].notes


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("aligned", [True, False])
def test_mult(tmp_path, protocol, aligned):
    file = write(tmp_path / "x.pkl", mult(aligned=aligned), protocol)
    source = read_source(file)
    check(source, f"mult_{'' if aligned else 'un'}aligned", aligned=aligned)
    train = source.splits["train"]
    np.testing.assert_array_equal(train.labels["score"], scores("train"))
    assert train.ids[3] == "train1$_$3.0$_$9"


def test_mult_of_emotions_has_no_ids(tmp_path):
    root = mult(emotions=True)
    source = read_source(write(tmp_path / "x.pkl", root))
    check(source, "mult_unaligned")
    part = source.splits["valid"]
    want = root["valid"]["labels"][..., 1].astype(int)
    np.testing.assert_array_equal(part.labels["emotions"], want)
    assert part.labels["emotions"].dtype == np.int32 and part.ids == ()


def with_intensities(split: str) -> np.ndarray:
    """A score and six intensities of every example, (n 7)."""
    count = COUNTS[split]
    intensities = np.random.default_rng(5).choice([0, 1 / 3, 3], (count, 6))
    return np.concatenate([scores(split)[:, None], intensities], axis=1)


def test_six_emotions_after_the_score(tmp_path):
    root, lists = mult(), {split: mmim(split) for split in COUNTS}
    for split, table in root.items():
        values = with_intensities(split)
        table["labels"] = values[:, None].copy()
        lists[split] = [
            (x, row[None], name)
            for (x, _, name), row in zip(lists[split], values, strict=True)
        ]
    write_mmim(tmp_path / "MOSEI")
    for split, file in MMIM_FILES.items():
        write(tmp_path / "MOSEI" / file, lists[split], 2)
    for path in (write(tmp_path / "x.pkl", root), tmp_path / "MOSEI"):
        for split, part in read_source(path).splits.items():
            want = with_intensities(split)
            np.testing.assert_array_equal(part.labels["emotions"], want[:, 1:] > 0)
            np.testing.assert_allclose(part.labels["score"], want[:, 0])
    root["valid"]["labels"][2, 0, 3] = np.nan
    with pytest.raises(DataError, match=r"D71.*valid: labels has intensities"):
        read_source(write(tmp_path / "x.pkl", root))
    for row, message in (
        (np.ones((1, 1)), "not 1, 7"),
        (-np.ones((1, 7)), "negative or NaN; example 1 has -1"),
        (np.ones((1, 2)), "1 or 7 values; example 1 has 2"),
    ):
        lists["valid"][1] = (lists["valid"][1][0], row, "one")
        write(tmp_path / "MOSEI" / "dev.pkl", lists["valid"], 2)
        with pytest.raises(DataError, match=rf"D71.*valid.*label .*{message}"):
            read_source(tmp_path / "MOSEI")


def test_zero_steps_in_the_middle_are_kept(tmp_path):
    root = mult()
    root["train"]["audio"][0, 4] = 0
    root["train"]["vision"][1] = 0
    train = read_source(write(tmp_path / "x.pkl", root)).splits["train"]
    assert (
        train.inputs["audio"][0].shape == (9, 5)
        and not train.inputs["audio"][0][4].any()
    )
    assert len(train.inputs["video"][1]) == 0  # missing


def test_aligned_modalities_end_with_the_text(tmp_path):
    root = mmsa(aligned=True)
    length = lengths("train", "text")[1]
    root["train"]["audio"][1, length - 1] = 0
    root["train"]["vision"][1] = 0
    train = read_source(write(tmp_path / "x.pkl", root)).splits["train"]
    assert {len(rows[1]) for rows in train.inputs.values()} == {length}
    del (
        root["train"]["text_bert"],
        root["valid"]["text_bert"],
        root["test"]["text_bert"],
    )
    train = read_source(write(tmp_path / "x.pkl", root)).splits["train"]
    sizes = {name: len(rows[1]) for name, rows in train.inputs.items()}
    assert sizes == {"text": length, "audio": length - 1, "video": 0}


def test_aligned_modalities_start_together(tmp_path):
    root = mult(aligned=True)
    root["train"]["text"][0, :3] = 0  # words without a vector
    root["train"]["vision"][0] = 0
    train = read_source(write(tmp_path / "x.pkl", root)).splits["train"]
    sizes = {name: len(train.inputs[name][0]) for name in STEPS}
    assert sizes == {"text": 6, "audio": 6, "video": 0}


def test_infinite_values_are_not_padding(tmp_path):
    root = mult()
    start = 9 - lengths("train", "audio")[1]
    root["train"]["audio"][1, start] = -np.inf
    train = read_source(write(tmp_path / "x.pkl", root)).splits["train"]
    got = train.inputs["audio"][1]
    assert len(got) == lengths("train", "audio")[1] and np.isneginf(got[0]).all()


def test_mmim(tmp_path):
    source = read_source(write_mmim(tmp_path / "MOSI"))
    check(source, "mmim", ("audio", "video"))
    train = source.splits["train"]
    assert train.inputs["words"][0].tolist() == [1, 2, 3, 4, 5, 6]
    assert train.ids[3] == "train1$_$3" and train.texts[0] == "so so so so so so"


def test_mmim_without_a_step_of_a_modality(tmp_path):
    folder = write_mmim(tmp_path)

    def written(changed):
        """The split "valid" with another audio in some of its examples."""
        examples = mmim("valid")
        for i, audio in changed.items():
            (words, video, _, *rest), *named = examples[i]
            examples[i] = ((words, video, audio, *rest), *named)
        return write(folder / "dev.pkl", examples).parent

    some = {0: np.zeros((0, WIDTHS["audio"]), "f4"), 2: np.zeros(0)}
    audio = read_source(written(some)).splits["valid"].inputs["audio"]
    assert [len(x) > 0 for x in audio] == [False, True, False, True]
    assert {x.shape[1] for x in audio} == {WIDTHS["audio"]}
    with pytest.raises(DataError, match="D71.*valid: audio is empty"):
        read_source(written(dict.fromkeys(range(COUNTS["valid"]), np.zeros((0, 5)))))


@pytest.mark.parametrize("emotions", [True, False])
def test_npz(tmp_path, emotions):
    arrays = npz(emotions=emotions)
    np.savez(tmp_path / "x.npz", **arrays)  # pyright: ignore[reportArgumentType]
    source = read_source(tmp_path / "x.npz")
    check(source, "npz")
    label = "emotions" if emotions else "score"
    test = source.splits["test"]
    np.testing.assert_array_equal(test.labels[label], arrays[f"test_{label}"])
    assert test.ids == tuple(clips("test"))


def test_values_past_the_length_are_truncated_and_noted(tmp_path):
    root = mmsa()
    root["train"]["audio_lengths"][0] = 4
    train = read_source(write(tmp_path / "x.pkl", root)).splits["train"]
    assert len(train.inputs["audio"][0]) == 4
    assert train.notes == [
        "audio of 1 examples has non-zero values past its length; truncated",
        UNUSED,
    ]


def change(path, split="train", **entries):
    def made(root):
        root[split] |= entries
        return root

    return write(path, made(mmsa()))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"audio_lengths": [3] * 7 + [10]},
            "audio_lengths must be integers from 0 to 9; example 7 has 10",
        ),
        ({"audio_lengths": [1.5] * 8}, "audio_lengths must be integers.* has 1.5"),
        ({"audio_lengths": [3] * 7}, "audio_lengths has 7 rows, but there are 8"),
        (
            {"audio": np.zeros((7, 9, 5), "f4")},
            "audio has 7 rows, but there are 8",
        ),
        (
            {"audio": np.zeros((8, 9, 5, 1), "f4")},
            r"audio has the shape \(8, 9, 5, 1\); expected \(n t f\) or \(n f\)",
        ),
        (
            {"text": np.zeros((8, 9), "i8")},
            "text has the shape .* and integers, as token ids have",
        ),
        (
            {"audio": [np.ones((2, 5))] * 7 + [np.ones((2, 4))]},
            r"audio must have .* example 0 has the shape \(2 5\), example 7 \(2 4\)",
        ),
        (
            {"audio": [np.ones((2, 5))] * 7 + [np.ones(5)]},
            r"audio must have .* example 7 \(5\)",
        ),
        ({"audio": [None] * 8}, r"audio has the shape \(8, 0\)|audio is empty"),
        (
            {"audio": [[[1.0], [1.0, 2.0]]] * 8},
            "audio has an example 0 whose rows have different lengths",
        ),
        (
            {"audio": [np.ones((2, 5))] * 7 + ["so"]},
            "audio must be numeric; example 7 has 'so'",
        ),
        (
            {"audio": np.zeros((8, 9, 4), "f4")},
            "audio has 5 features in 'valid'",
        ),
        (
            {"vision": np.array(["a"] * 8)},
            "vision must be numeric; example 0 has 'a'",
        ),
        ({"vision": 3.5}, "vision must be an array, not a value of type float"),
        ({"text": ["so good"] * 8}, "text must be numeric; example 0 has 'so good'"),
        ({"regression_labels": np.zeros(0, "f4")}, "is empty"),
        ({"regression_labels": []}, "is empty"),
        (
            {"regression_labels": [1.0] * 7 + ["-1.2"]},
            "regression_labels must be numeric; example 7 has '-1.2'",
        ),
        (
            {"regression_labels": [1.0] * 7 + [None]},
            "regression_labels must be numeric; example 7 has None",
        ),
        (
            {"regression_labels": [[1.0]] * 7 + [[1.0, 2.0]]},
            r"rows of the same shape; example 0 has \(1,\), example 7 has \(2,\)",
        ),
        (
            {"regression_labels": np.eye(3)[[0, 1, 2, 0, 1, 2, 0, 1]]},
            "must have one column, not 3; it is one-hot encoded",
        ),
        ({"audio": np.zeros((8, 0, 5), "f4")}, r"audio is empty: .*\(8, 0, 5\)"),
        ({"audio": np.zeros((8, 9, 0), "f4")}, r"audio is empty: .*\(8, 9, 0\)"),
        ({"text_bert": np.zeros((8, 3, 0))}, "text_bert is empty: its shape"),
        ({"regression_labels": np.zeros((8, 2))}, "must have one column, not 2"),
        ({"id": ["a"]}, "id has 1 rows, but there are 8 labels"),
        ({"id": 3}, "id must be a list of strings"),
        ({"text_bert": np.ones((8, 2, 6))}, r"must have the shape \(n 3 t\)"),
        ({"text_bert": np.ones((8, 6, 3))}, r"must have the shape \(n 3 t\)"),
        ({"text_bert": np.ones((8, 6))}, r"expected \(n 3 t\): ids, mask, segments"),
        (
            {"text_bert": np.full((8, 3, 6), 0.5)},
            "text_bert must be integers from 0 to 16777216; example 0 has 0.5",
        ),
    ],
)
def test_invalid_fields_are_named(tmp_path, entries, message):
    with pytest.raises(DataError, match=f"D71.*({message})") as caught:
        read_source(change(tmp_path / "x.pkl", **entries))
    assert caught.value.fix


def test_a_mask_with_a_gap_is_refused(tmp_path):
    root = mmsa()
    root["train"]["text_bert"][0, 1] = [1, 1, 0, 1, 0, 0]
    with pytest.raises(
        DataError, match=r"D71.*ones followed by zeros; example 0 has \[1, 1, 0, 1"
    ):
        read_source(write(tmp_path / "x.pkl", root))


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ([1, 2], "is not a known layout: a list of 2: int, int"),
        ({"train": mmsa()["train"]}, "has no split 'test'; it contains train"),
        ({"train": 1, "valid": {}, "test": {}}, "layout: a dict with train, valid"),
        ({"train": mmsa()["train"], "test": 3}, "test is an object of type int"),
        (
            dict.fromkeys(COUNTS, {"regression_labls": 1, "audio": 2}),
            "contains regression_labls, audio, but no labels[\\s\\S]*rename 'regr",
        ),
        (
            dict.fromkeys(COUNTS, {"audio": 2, "annotations": ["Positive"]}),
            "has no scores[\\s\\S]*annotations are classes",
        ),
        (dict.fromkeys(COUNTS, {"regression_labels": np.ones(2)}), "but no features"),
    ],
)
def test_a_file_of_an_unknown_layout_shows_its_content(tmp_path, root, message):
    with pytest.raises(DataError, match=rf"D70[\s\S]*{message}") as caught:
        read_source(write(tmp_path / "x.pkl", root))
    assert caught.value.fix and "did you mean" not in caught.value.fix


def test_labels_of_another_form_are_rejected(tmp_path):
    root = mult(emotions=True)
    root["test"]["labels"][0, 0] = 1
    with pytest.raises(
        DataError, match="D71.*one-hot encoded; example 0 has .1, 1. for"
    ):
        read_source(write(tmp_path / "x.pkl", root))
    root = mult()
    root["test"]["labels"] = np.zeros((5, 3))
    with pytest.raises(
        DataError, match=r"D71.*labels has the shape \(5, 3\); expected"
    ):
        read_source(write(tmp_path / "x.pkl", root))
    root["test"] = mmsa()["test"]
    with pytest.raises(DataError, match=r"D70.*test has no 'labels'"):
        read_source(write(tmp_path / "x.pkl", root))


def test_files_of_other_formats(tmp_path):
    with pytest.raises(DataError, match=r"D30[\s\S]*did you mean 'there.pkl'"):
        (tmp_path / "there.pkl").touch()
        read_source(tmp_path / "ther.pkl")
    with pytest.raises(DataError, match=r"D30[\s\S]*did you mean 'mosi'"):
        read_source(tmp_path / "mosy")
    with pytest.raises(DataError, match=r"D30[^\n]*$"):
        read_source(tmp_path / "another")
    cut = tmp_path / "cut.pkl"
    cut.write_bytes(pickle.dumps(mmsa())[:-100])
    with pytest.raises(DataError, match="D60"):
        read_source(cut)
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(DataError, match="D52"):
        read_source(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", train_text=np.array([None]))
    with pytest.raises(DataError, match=r"D52[\s\S]*plain arrays"):
        read_source(tmp_path / "y.npz")
    np.savez(tmp_path / "y.npz", text=np.ones(3))
    with pytest.raises(DataError, match="D70.*without splits"):
        read_source(tmp_path / "y.npz")


def test_pickled_functions_are_rejected(tmp_path):
    root = mmsa()
    root["train"]["audio"] = os.system
    with pytest.raises(DataError, match="D61.*system"):
        read_source(write(tmp_path / "x.pkl", root))


def test_a_list_of_examples_with_a_fault_names_it(tmp_path):
    folder = write_mmim(tmp_path)
    for bad, message in (
        ({"a": 1}, "is not a list of examples"),
        ([(1, 2, 3)], "example 0, is not"),
        (
            [((np.ones(2), np.ones((2, 3)), np.ones(4), ["a"]), [[1.0]], "x")],
            "audio must have|audio has",
        ),
        (
            [((np.ones(2), np.ones((2, 3)), np.ones((1, 4)), ["a"]), [1.0, 2.0], "x")],
            "label",
        ),
    ):
        write(folder / "dev.pkl", bad)
        with pytest.raises(DataError, match=message):
            read_source(folder)


def test_statistics_show_problems(tmp_path):
    root = mmsa()
    root["train"]["audio"][0, 1, :2] = [np.nan, -np.inf]
    root["valid"]["vision"][1] = 0
    root["valid"]["vision"][2, 0, 0] = 1e9
    root["test"]["vision"][..., 1] *= 0
    root["test"]["id"][0] = "train0$_$7"
    root["test"]["id"][2] = root["test"]["id"][1]
    root["test"]["regression_labels"][:] = 1
    root["valid"]["regression_labels"][:2] = [np.nan, np.inf]
    summary = summarize_file(str(write(tmp_path / "x.pkl", root)), "mosi")
    splits = summary.splits
    audio = splits["train"].inputs["audio"]
    assert (audio.nan, audio.infinite, audio.features) == (1, 1, 5)
    assert audio.steps.maximum == 9 and splits["valid"].inputs["video"].silent == 1
    findings = find_problems(summary)
    found = "\n".join(findings.problems)
    for message in (
        "train: NaN or infinite values: 2 of audio",
        "1 videos are in two splits (data leakage): 'train0' in",
        "test: 1 duplicate clips, such as 'test0$_$1'",
        "valid: video has values from",
        "test: label 'score' is 1.0 in all 5 examples",
        "valid: score not from -3 to 3: example 0 'valid0$_$0': nan, example 1 "
        "'valid0$_$1': inf",
    ):
        assert message in found
    text = "\n".join(findings.remarks)
    assert "published: 1284/229/686" in text
    assert "valid: video of 1 examples is all zeros" in text
    assert "test: 1 of 4 features of video are constant" in text
    root = mmsa(high=1.0, sims=True)
    root["test"]["id"][0] = "train0$_$7"
    findings = find_problems(
        summarize_file(str(write(tmp_path / "x.pkl", root)), "sims")
    )
    text = "\n".join(findings.remarks)
    assert "1 videos, and their speakers, are in more than one split" in text
    assert not findings.problems


def test_moments_are_those_of_the_valid_steps(tmp_path):
    root = mmsa()
    root["train"]["audio"][0, 1, 2] = np.inf
    splits = summarize_file(str(write(tmp_path / "x.pkl", root))).splits
    parts = rows("train", "audio", lengths("train", "audio"))
    parts[0][1, 2] = 0
    steps = np.concatenate(parts).astype("f8")
    moments = splits["train"].inputs["audio"].moments
    assert moments is not None and moments.count == len(steps)
    np.testing.assert_allclose(moments.total, steps.sum(0))
    np.testing.assert_allclose(moments.square, np.square(steps).sum(0))


def test_known_files_are_of_known_data_sets():
    assert all(len(sha256) == 64 for sha256 in PUBLISHED_FILES)
    assert {known.name for known in PUBLISHED_FILES.values()} == {
        "mosi",
        "mosei",
        "sims",
    }


def test_real_pickles_of_other_layouts_are_rejected(real_data):
    folder = real_data / "pickle_samples"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    for name, code, message in (
        ("mosi_audio.pickle", "D70", "bc-LSTM"),
        ("must_split.p", "D70", "a list of 5: tuple of 2, tuple of 2"),
        ("jg_mosei_val.pkl", "D70", "one split, without the names of splits"),
        ("io_audio_mel_val.pkl", "D61", "torch"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            read_source(folder / name)
        assert caught.value.code == code
