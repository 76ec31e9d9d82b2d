"""Feature files under other names, in other forms, packed or damaged."""

import base64
import bz2
import gzip
import io
import lzma
import pickle
import shutil
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from feature_files import (
    COUNTS,
    STEPS,
    lengths,
    mmim,
    mmsa,
    mult,
    npz,
    padded,
    rows,
    scores,
    write,
    write_mmim,
)

from mmfusion_jax.data.feature_files.padded_sequences import video
from mmfusion_jax.data.feature_files.reader import list_files, read_source
from mmfusion_jax.errors import DataError


def clips_of(split, name):
    return rows(split, name, lengths(split, name))


def same(source, names=tuple(STEPS)):
    """Every example has its own steps and nothing else."""
    for split, part in source.splits.items():
        for name in names:
            for got, want in zip(part.inputs[name], clips_of(split, name), strict=True):
                assert got.dtype == np.float32
                np.testing.assert_array_equal(got, want)


def changed(root, change):
    for table in root.values():
        change(table)
    return root


def notes(source, split="train"):
    return "\n".join(source.splits[split].notes)


@pytest.mark.parametrize(
    "names",
    [
        {"vision": "video", "vision_lengths": "video_lengths"},
        {"vision": "visual", "audio": "acoustic", "text": "language"},
        {"audio_lengths": "audio_length", "vision": "Vision", "id": "ids"},
        {"audio": b"audio", "regression_labels": "regression_label"},
    ],
)
def test_entries_under_another_name_are_read_and_named(tmp_path, names):
    root = mmsa()
    for table in root.values():
        for old, new in names.items():
            table[new] = table.pop(old)
    source = read_source(write(tmp_path / "x.pkl", root))
    same(source)
    np.testing.assert_array_equal(source.splits["test"].labels["score"], scores("test"))
    text = notes(source)
    for old, new in names.items():
        is_same = isinstance(new, bytes)
        assert is_same or f"{new} as {old}" in text
    assert "under another name" not in notes(source, "test")


def test_an_entry_of_the_exact_name_is_preferred_and_the_other_named(tmp_path):
    root = changed(mmsa(), lambda t: t.update(video=np.zeros((3, 3)), rating=[1]))
    source = read_source(write(tmp_path / "x.pkl", root))
    same(source)
    assert (
        "not read: annotations, classification_labels, video (nearest known entry: "
        "vision), rating"
    ) in notes(source)


def test_two_entries_of_one_meaning_are_refused(tmp_path):
    root = mmsa()
    for table in root.values():
        table["visual"] = table["video"] = table.pop("vision")
    with pytest.raises(DataError, match=r"D71.*train contains .*read as 'vision'"):
        read_source(write(tmp_path / "x.pkl", root))


@pytest.mark.parametrize(
    ("train", "valid", "test"),
    [
        ("train", "dev", "test"),
        ("train", "val", "test"),
        ("Train", "validation", "TEST"),
        (b"training", b"valid", b"testing"),
    ],
)
def test_splits_under_another_name(tmp_path, train, valid, test):
    root = mult()
    root = {test: root["test"], valid: root["valid"], train: root["train"]}
    source = read_source(write(tmp_path / "x.pkl", root))
    assert list(source.splits) == list(COUNTS)
    same(source)
    if valid != "valid" and isinstance(valid, str):
        assert f"{valid} as valid" in notes(source)
    arrays = npz()
    if isinstance(train, bytes):
        return
    for split, name in (("train", train), ("valid", valid), ("test", test)):
        for key in [one for one in arrays if one.startswith(split)]:
            arrays[key.replace(split, name, 1)] = arrays.pop(key)
    np.savez(tmp_path / "x.npz", **arrays)  # pyright: ignore[reportArgumentType]
    source = read_source(tmp_path / "x.npz")
    same(source)


def test_other_splits_are_named_and_not_read(tmp_path):
    root = mult()
    root |= {"train_mix": root["train"], "dev": 3, "meta": "v2"}
    source = read_source(write(tmp_path / "x.pkl", root))
    assert "splits that are not read: train_mix, dev, meta" in notes(source)
    del root["valid"]
    root["val"] = root["train"]
    with pytest.raises(DataError, match="D71.*dev, val, which are all read as 'valid'"):
        read_source(write(tmp_path / "x.pkl", root))


def test_ragged_lists_and_object_arrays(tmp_path):
    def ragged(root, has_lengths):
        for split, table in root.items():
            table["audio"] = clips_of(split, "audio")
            table["vision"] = np.empty(COUNTS[split], object)
            for i, one in enumerate(clips_of(split, "video")):
                table["vision"][i] = one.tolist() if i % 2 else one
            if not has_lengths:
                table.pop("audio_lengths", None)
                table.pop("vision_lengths", None)
        return root

    for root in (ragged(mmsa(), True), ragged(mmsa(), False), ragged(mult(), True)):
        source = read_source(write(tmp_path / "x.pkl", root))
        same(source)
        assert source.layout.endswith("_unaligned")


def test_lengths_of_ragged_lists_cut_them_or_are_refused(tmp_path):
    root = mmsa()
    for split, table in root.items():
        table["audio"] = clips_of(split, "audio")
    root["train"]["audio_lengths"][2] = 1
    source = read_source(write(tmp_path / "x.pkl", root))
    assert len(source.splits["train"].inputs["audio"][2]) == 1
    short = int(np.argmin(lengths("train", "audio")))
    root["train"]["audio_lengths"][short] = 9
    message = rf"D71.*audio_lengths of example {short} is 9, but it has"
    with pytest.raises(DataError, match=message):
        read_source(write(tmp_path / "x.pkl", root))


@pytest.mark.parametrize(("length", "fix"), [(55, "np.minimum"), (-1, "formats.md")])
def test_the_fix_of_a_length_is_that_of_its_cause(tmp_path, length, fix):
    root = mmsa()
    root["train"]["audio_lengths"][3] = length
    with pytest.raises(DataError, match=f"example 3 has {length}") as caught:
        read_source(write(tmp_path / "x.pkl", root))
    assert fix in caught.value.fix


def test_examples_without_steps_in_a_list_are_missing(tmp_path):
    root = mmsa()
    for split, table in root.items():
        table["audio"] = clips_of(split, "audio")
        del table["audio_lengths"]
    root["train"]["audio"][1] = None
    root["train"]["audio"][2] = np.zeros(0)
    root["train"]["audio"][3] = np.zeros((0, 5))
    found = read_source(write(tmp_path / "x.pkl", root)).splits["train"]
    assert [x.shape for x in found.inputs["audio"]][1:4] == [(0, 5)] * 3


def test_numbers_in_object_arrays(tmp_path):
    def objects(table):
        for key in ("regression_labels", "audio", "text_bert"):
            values = np.asarray(table[key])
            table[key] = values.astype(object)

    source = read_source(write(tmp_path / "x.pkl", changed(mmsa(), objects)))
    same(source)
    got = source.splits["train"].labels["score"]
    np.testing.assert_array_equal(got, scores("train"))


KEYS = {"audio": "audio", "video": "vision", "text": "text"}


def first_step(split, name):
    """The first step of every example, (n f)."""
    return np.stack([x[0] for x in clips_of(split, name)])


def vectors(layout):
    """A file in which the features are vectors."""
    if layout == "npz":
        return {
            name: first_step(*name.split("_")) if name.split("_")[1] in KEYS else values
            for name, values in npz().items()
            if not name.endswith("_lengths")
        }
    root = mult() if layout == "mult" else mmsa()
    for split, table in root.items():
        for name, key in KEYS.items():
            values = first_step(split, name)
            table[key] = list(values) if layout == "list" else values
    return root


@pytest.mark.parametrize("layout", ["mmsa", "mult", "npz", "list"])
def test_one_vector_for_each_example(tmp_path, layout):
    path = tmp_path / "x.npz"
    if layout == "npz":
        np.savez(path, **vectors(layout))  # pyright: ignore[reportArgumentType]
    else:
        write(path, vectors(layout))
    source = read_source(path)
    for split, part in source.splits.items():
        for name in STEPS:
            got = np.stack(list(part.inputs[name]))
            np.testing.assert_array_equal(got, first_step(split, name)[:, None])
    assert "audio has one vector for each example" in notes(source)
    assert "one vector" not in notes(source, "valid")


def test_zeros_at_the_end_of_the_mult_layout_are_padding(tmp_path):
    root = mult()
    for split, table in root.items():
        for name, key in (("text", "text"), ("audio", "audio"), ("video", "vision")):
            table[key] = padded(clips_of(split, name), STEPS[name])
    source = read_source(write(tmp_path / "x.pkl", root))
    same(source)
    assert "zero steps are at the end" in notes(source)


def magbert(words):
    """Lists of examples in one file, without `actual_words`."""
    root = {}
    for split, name in (("train", "train"), ("valid", "dev"), ("test", "test")):
        root[name] = [
            ((words(split, i, len(x[0])), *x[1:3]), *rest)
            for i, (x, *rest) in enumerate(mmim(split))
        ]
    return root


def test_lists_with_words_as_text(tmp_path):
    words = lambda split, i, n: (
        [f"w{k % 3}" for k in range(n)]
        + (["other"] if split == "test" and not i else [])
    )
    source = read_source(write(tmp_path / "x.pkl", magbert(words)))
    assert source.layout == "mmim"
    same(source, ("audio", "video"))
    train, test = source.splits["train"], source.splits["test"]
    assert train.inputs["words"][0].tolist() == [1, 2, 3, 1, 2, 3]
    assert test.inputs["words"][0].tolist()[-2:] == [3, 0]
    assert train.texts[0] == "w0 w1 w2 w0 w1 w2" and train.ids[3] == "train1$_$3"
    assert "3 words of the training split have ids" in notes(source)
    total = lengths("test", "text").sum() + 1
    assert f"1 of {total} words are not in the training split" in notes(source, "test")


def test_lists_with_word_ids_and_without_words(tmp_path):
    root = magbert(lambda split, i, n: np.arange(n) + 2)
    source = read_source(write(tmp_path / "x.pkl", root))
    assert source.splits["test"].inputs["words"][0].tolist() == [2, 3, 4, 5, 6, 7]
    for row, message in (
        (["so", 3], "must be numeric|all texts or all ids"),
        ([1.5], "example 2: words must be integers from 0 to 16777216, not 1.5"),
    ):
        (_, *inputs), *rest = root["train"][2]
        root["train"][2] = ((row, *inputs), *rest)
        with pytest.raises(DataError, match=f"D71.*({message})"):
            read_source(write(tmp_path / "x.pkl", root))
    root["train"][2] = (1, 2)
    with pytest.raises(DataError, match="D70.*example 2, is not .* but a tuple of an"):
        read_source(write(tmp_path / "x.pkl", root))


def test_a_folder_with_a_file_for_each_split(tmp_path):
    for split, name in (("train", "train"), ("valid", "valid"), ("test", "test")):
        write(tmp_path / "own" / f"{name}.pkl", mmsa()[split])
    (tmp_path / "own" / "embedding_and_mapping.pt").touch()
    source = read_source(tmp_path / "own")
    same(source)
    assert "files that are not read: embedding_and_mapping.pt" in notes(source)


def test_a_folder_above_the_file(tmp_path):
    folder = tmp_path / "MOSI"
    file = write(folder / "Processed" / "unaligned_50.pkl", mmsa())
    (folder / "Raw").mkdir()
    (folder / "label.csv").touch()
    source = read_source(folder)
    same(source)
    assert list_files(folder) == (file,) and "unaligned_50.pkl'" in notes(source)
    assert source.sha256 == read_source(file).sha256
    write(folder / "Processed" / "aligned_50.pkl", mmsa(aligned=True))
    with pytest.raises(DataError, match="D70.*contains 2 feature files: Processed/al"):
        read_source(folder)
    shutil.rmtree(folder / "Processed")
    with pytest.raises(DataError, match="no feature file; it contains Raw, label.csv"):
        read_source(folder)
    write_mmim(folder / "MISA")
    (folder / "MISA" / "dev.pkl").rename(folder / "MISA" / "val.pkl")
    same(read_source(folder), ("audio", "video"))


def test_a_validation_split_is_cut_off_by_video(tmp_path):
    root = mmsa()
    del root["valid"]
    source = read_source(write(tmp_path / "x.pkl", root))
    train, valid = source.splits["train"], source.splits["valid"]
    videos = [{video(one) for one in part.ids} for part in (train, valid)]
    assert all(videos) and not videos[0] & videos[1]
    assert sorted([*train.ids, *valid.ids]) == sorted(root["train"]["id"])
    assert 0.15 <= len(valid) / COUNTS["train"] <= 0.4
    # Every example has kept its own features and label.
    place = {one: i for i, one in enumerate(root["train"]["id"])}
    for part in (train, valid):
        for i, one in enumerate(part.ids):
            want = clips_of("train", "audio")[place[one]]
            np.testing.assert_array_equal(part.inputs["audio"][i], want)
            assert part.labels["score"][i] == scores("train")[place[one]]
            assert part.texts[i] == root["train"]["raw_text"][place[one]]
    assert "has no validation split: 1 of 4 videos, 2 of 8 examples" in notes(source)
    # The names alone decide: the order of the clips does not matter.
    root["train"] = {
        key: [values[i] for i in range(COUNTS["train"])[::-1]]
        for key, values in root["train"].items()
    }
    again = read_source(write(tmp_path / "y.pkl", root)).splits["valid"]
    assert sorted(again.ids) == sorted(valid.ids)


@pytest.mark.parametrize("ids", [None, [str(7 * i) for i in range(8)], ["a$_$1"] * 8])
def test_no_validation_split_is_cut_off_without_videos(tmp_path, ids):
    root = mmsa()
    del root["valid"], root["train"]["id"], root["test"]["id"]
    if ids:
        root["train"]["id"], root["test"]["id"] = ids, ids[:5]
    with pytest.raises(DataError, match=r"D70.*no validation split, and"):
        read_source(write(tmp_path / "x.pkl", root))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train_vision", r"vision \(nearest known entry: video\)"),
        ("train_labels", r"labels \(nearest known entry: score\)"),
        ("train_audio_length", r"nearest known entry: audio_lengths"),
        ("train_pieces_lengths", "not read: pieces_lengths"),
        ("train_foo", "not read: foo.\n"),
        ("meta", "arrays that are not read: meta.\n.*begin|starts with the name"),
    ],
)
def test_unknown_arrays_of_an_npz_are_an_error(tmp_path, name, message):
    arrays = npz() | {name: np.zeros(8)}
    np.savez(tmp_path / "x.npz", **arrays)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match=rf"D71[\s\S]*({message})"):
        read_source(tmp_path / "x.npz")


def test_a_renamed_array_of_an_npz_is_shown_with_its_name(tmp_path):
    arrays = npz()
    arrays["train_vision"] = arrays.pop("train_video")
    del arrays["train_video_lengths"]
    np.savez(tmp_path / "x.npz", **arrays)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match=r"D71[\s\S]*fix: rename vision to video;"):
        read_source(tmp_path / "x.npz")


def test_lists_of_equal_lengths_are_aligned_as_arrays_are(tmp_path):
    root = mmsa(aligned=True)
    root["train"]["audio"][1, -1] = 0
    for table in root.values():
        for key in ("audio", "vision", "text", "text_bert"):
            table[key] = np.asarray(table[key]).tolist()
    source = read_source(write(tmp_path / "x.pkl", root))
    assert source.layout == "mmsa_aligned"
    train = source.splits["train"]
    for i, length in enumerate(lengths("train", "text")):
        assert {len(values[i]) for values in train.inputs.values()} == {length}


def packed(raw, name):
    """An archive of one file."""
    stream = io.BytesIO()
    if name == "zip":
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("Processed/aligned_50.pkl", raw)
    else:
        with tarfile.open(fileobj=stream, mode="w") as archive:
            info = tarfile.TarInfo("aligned_50.pkl")
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return stream.getvalue()


RAW = pickle.dumps(mmsa())
CSV = b"video_id,clip_id,text,label,label_T\nvideo_0001,0001,so good,0.4,0.2\n"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 367\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello there", "is a text file"),
        ("señal, así".encode(), "is a text file"),
        ("id;score\na;1\n".encode("utf-16"), "table with the columns id, score"),
        (gzip.compress(RAW), "gzip[\\s\\S]*gunzip"),
        (bz2.compress(RAW), "bzip2[\\s\\S]*bunzip2"),
        (lzma.compress(RAW), "xz[\\s\\S]*unxz"),
        (lzma.compress(RAW, lzma.FORMAT_ALONE), "lzma"),
        (zlib.compress(RAW), "zlib"),
        (packed(RAW, "zip"), "zip archive of Processed/aligned_50.pkl"),
        (packed(RAW, "tar"), "tar xf"),
        (b"Rar!\x1a\x07\x01\x00", "RAR"),
        (b"7z\xbc\xaf\x27\x1c\x00\x04", "7z"),
        (b"\x28\xb5\x2f\xfd\x04", "zstd"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "MATLAB"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64", "7.3"),
        (b"PAR1\x15\x04", "parquet"),
        (b"\x93NUMPY\x01\x00", "a single array"),
        (b"\x00\x05\x16\x07\x00\x02", "AppleDouble"),
        (b"\n<!DOCTYPE html><html>sign in", "is an HTML page"),
        (b"\xef\xbb\xbf<html>quota exceeded", "is an HTML page"),
        (LFS, "Git LFS pointer[\\s\\S]*git lfs pull"),
        (b'{"error": "not found"}', "JSON"),
        (CSV, "table of labels of MMSA"),
        (b"id,split,label\na,train,1\n", "table with the columns id, split, label"),
        (b"clip_id,audio_0\na,1\n", "table with the columns clip_id, audio_0"),
        (base64.b64encode(RAW), "base64"),
        (RAW.decode("latin1").encode("utf-8"), "saved as text"),
    ],
)
def test_files_of_other_formats_are_named(tmp_path, content, message):
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"D70[\s\S]*{message}") as caught:
        read_source(path)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_line_ends_that_were_changed_are_named(tmp_path, protocol):
    root = mult()
    root["train"]["audio"][0] = np.frombuffer(b"\n" * 4, "f4")[0]
    raw = pickle.dumps(root, protocol)
    path = tmp_path / "x.pkl"
    path.write_bytes(raw.replace(b"\n", b"\r\n"))
    message = r"line ends were changed in transfer \(LF to CR LF\)[\s\S]*binary mode"
    with pytest.raises(DataError, match=message):
        read_source(path)
    path.write_bytes(raw)
    same(read_source(path), ("text", "video"))


def test_changed_line_ends_of_an_npz_are_named(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, **npz())  # pyright: ignore[reportArgumentType]
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(DataError, match=r"D52.*changed in transfer \(LF to CR LF\)"):
        read_source(path)


def one_by_one(table):
    """A list with a dict for each example."""
    count = len(table["id"])
    return [{key: values[i] for key, values in table.items()} for i in range(count)]


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (list(mmsa().values()), "splits without their names"),
        (tuple(mult().values())[:2], "splits without their names"),
        (one_by_one(mmsa()["train"]), "a list of examples, each of them a dict"),
        (
            {split: one_by_one(table) for split, table in mmsa().items()},
            "a list of examples, each of them a dict",
        ),
        (mmsa()["train"], "one split, without the names of splits"),
        ({"audio": np.ones((9, 5)), "vision": np.ones((7, 4))}, "of one clip"),
        ({"audio": np.ones((8, 9, 5))}, "features without splits and labels"),
        (mmim("train"), "one split of the layout of MISA"),
        (
            {"abc": {"features": np.ones((3, 2)), "intervals": np.ones((3, 2))}},
            "computational sequence",
        ),
        ({f"abc{i}": np.ones(5) for i in range(9)}, "an entry for each example"),
    ],
)
def test_other_structures_are_named(tmp_path, root, message):
    with pytest.raises(DataError, match=rf"D70.*{message}") as caught:
        read_source(write(tmp_path / "x.pkl", root))
    assert caught.value.fix and "did you mean" not in caught.value.fix


def test_other_damage_of_a_transfer_is_named(tmp_path):
    root = mult()
    rng = np.random.default_rng(0)
    root["train"]["audio"] = rng.normal(size=(8, 4000, 50)).astype("f4")
    raw, path = pickle.dumps(root), tmp_path / "x.pkl"
    path.write_bytes(raw.replace(b"\r\n", b"\n"))
    with pytest.raises(DataError, match=r"changed in transfer \(CR LF to LF\)"):
        read_source(path)
    path.write_bytes(b"\x80\x04" + raw[2:].decode("utf-8", "replace").encode())
    with pytest.raises(DataError, match="bytes were replaced"):
        read_source(path)
    path.write_bytes(raw[:-100])
    with pytest.raises(DataError, match="D60.*expected"):
        read_source(path)
