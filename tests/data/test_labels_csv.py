"""Tables of labels as people write them: names of files, splits, classes, scores."""

import os
import shutil
import unicodedata

import numpy as np
import pytest
from media_files import tone, write_wav

from mmfusion_jax.data.datasets.clips import load_clips
from mmfusion_jax.data.media.class_names import same_spelling, sorted_classes
from mmfusion_jax.data.media.clip_files import ClipFolder
from mmfusion_jax.data.media.labels_csv import read_labels
from mmfusion_jax.errors import DataError

AUDIO = {"modalities": ("audio",), "sample_rate": 16000, "workers": 0}
COMPOSED, DECOMPOSED = (unicodedata.normalize(f, "é.wav") for f in ("NFC", "NFD"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Eight clips, 0.wav to 7.wav, with different content."""
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    clips = tmp_path / "talks"
    clips.mkdir()
    for i in range(8):
        write_wav(clips / f"{i}.wav", tone(0.2, 300 + 50 * i))
    return clips


def labels(folder, text, encoding="utf-8", **options):
    (folder / "labels.csv").write_bytes(text.encode(encoding))
    return read_labels(folder / "labels.csv", folder, **options)


def load(folder, text, **options):
    (folder / "labels.csv").write_text(text)
    return load_clips(str(folder), **AUDIO | options)


@pytest.mark.parametrize(
    "cell",
    ["./sub/a.wav", "sub//a.wav", "sub/../sub/a.wav", "talks/sub/a.wav", "sub\\a.wav",
     "/data/talks/sub/a.wav", "C:\\me\\talks\\sub\\a.wav", "{folder}/sub/a.wav"],
)  # fmt: skip
def test_paths_that_name_a_file(folder, cell):
    (folder / "sub").mkdir()
    shutil.copy(folder / "0.wav", folder / "sub" / "a.wav")
    cell = cell.format(folder=folder)
    rows = labels(folder, f"file,label\n{cell},a\n1.wav,b\n").rows
    assert rows[0].file == os.path.join("sub", "a.wav")
    with pytest.raises(DataError, match=r"D41.*line 4: 'sub/a\.wav' is a duplicate"):
        labels(folder, f"file,label\n{cell},a\n1.wav,b\nsub/a.wav,b\n")


@pytest.mark.parametrize("typed", [COMPOSED, DECOMPOSED])
@pytest.mark.parametrize("stored", [COMPOSED, DECOMPOSED])
def test_both_forms_of_an_accent_name_a_file(folder, typed, stored):
    (folder / "0.wav").rename(folder / stored)
    rows = labels(folder, f"file,label\n{typed},a\n1.wav,b\n").rows
    assert rows[0].file == stored


def test_two_files_that_differ_in_the_form_of_an_accent_are_two(folder):
    (folder / "0.wav").rename(folder / COMPOSED)
    (folder / "1.wav").rename(folder / DECOMPOSED)
    rows = labels(folder, f"file,label\n{DECOMPOSED},a\n{COMPOSED},b\n").rows
    assert [row.file for row in rows] == [DECOMPOSED, COMPOSED]


def test_a_folder_of_the_same_name_in_the_folder_comes_first(folder):
    (folder / "talks").mkdir()
    shutil.copy(folder / "1.wav", folder / "talks" / "0.wav")
    found = ClipFolder(folder)
    assert found.find("talks/0.wav") == os.path.join("talks", "0.wav")
    assert found.find("talks/2.wav") == "2.wav"


@pytest.mark.parametrize(
    ("cell", "near"), [("0.WAV", "0.wav"), ("0", "0.wav"), ("clips/3.wav", "3.wav")]
)
def test_names_that_are_not_taken_name_the_similar_file(folder, cell, near):
    message = rf"D42[\s\S]*line 2: {cell} does not exist; did you mean '{near}'\?"
    with pytest.raises(DataError, match=message):
        labels(folder, f"file,label\n{cell},a\n1.wav,b\n")


def test_files_outside_of_the_folder_need_an_option(folder, tmp_path):
    outside = tmp_path / "other.wav"
    shutil.copy(folder / "0.wav", outside)
    (folder / "link.wav").symlink_to(outside)
    text = "file,label\nlink.wav,a\n1.wav,b\n"
    assert labels(folder, text).rows[0].file == "link.wav"
    for cell in ("../other.wav", str(outside)):
        text = f"file,label\n{cell},a\n1.wav,b\n"
        with pytest.raises(
            DataError, match=r"D42[\s\S]*outside of the folder[\s\S]*_fil"
        ):
            labels(folder, text)
        assert labels(folder, text, outside=True).rows[0].file == str(outside)


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("latin-1", r"not UTF-8 text: line 3 is '1.wav,höhe' if it is Windows-1252"),
    ],
)
def test_other_encodings_are_named(folder, encoding, message):
    with pytest.raises(DataError, match=f"D41.*{message}"):
        labels(folder, "file,label\n0.wav,a\n1.wav,höhe\n", encoding)


def test_splits_have_the_names_of_datasets(folder):
    names = (
        "Train",
        "training",
        "dev",
        "val",
        "Validation",
        "TEST",
        "testing",
        "valid",
    )
    rows = [f"{i}.wav,{'ab'[i % 2]},{name}" for i, name in enumerate(names)]
    found = labels(folder, "\n".join(["File,Label,Split", *rows])).rows
    wanted = ["train"] * 2 + ["valid"] * 3 + ["test"] * 2 + ["valid"]
    assert [row.split for row in found] == wanted


@pytest.mark.parametrize(
    "names",
    [("High", "high"), ("so so", "so_so"), ("été", "ete"), ("1", "1.0"), ("1", "01")],
)
def test_two_spellings_of_a_class_are_refused(folder, names):
    rows = "".join(f"{i}.wav,{[*names, 'b'][i % 3]}\n" for i in range(6))
    with pytest.raises(
        DataError, match=r"D07.*\(2 rows\) and .*differ in spelling only"
    ):
        labels(folder, "file,label\n" + rows)
    classes = (*names, "b")
    assert len(labels(folder, "file,label\n" + rows, classes=classes).rows) == 6


def test_numbers_are_sorted_as_numbers(folder):
    assert sorted_classes(["10", "9", "1.5", "-1"]) == ("-1", "1.5", "9", "10")
    assert same_spelling(["a", "b", "10", "1"]) == []
    rows = [f"{i}.wav,{(2, 10)[i % 2]}" for i in range(8)]
    data = load(folder, "\n".join(["file,label", *rows]))
    assert data.classes == {"label": ("2", "10")}
    assert data.label("train", "label").tolist().count(0) == 2


def test_a_score_column_gives_regression(folder):
    splits = ["train"] * 5 + ["test"] * 3
    rows = [f"{i}.wav,{i - 3}.5,{split}" for i, split in enumerate(splits)]
    data = load(folder, "\n".join(["file,score,split", *rows]))
    assert not data.classes and data.values["score"].low == -3.5
    assert data.label("test", "score").tolist() == [2.5, 3.5, 4.5]
    assert data.source("test")[1]["labels"]["score"] == np.float32(3.5)
    both = [f"{i}.wav,{'ab'[i % 2]},{i}" for i in range(8)]
    data = load(folder, "\n".join(["file,label,score", *both]))
    assert data.classes == {"label": ("a", "b")} and data.values["score"].high == 7
    # Integers as classes are not scores: how many there are does not tell.
    assert load(
        folder, "file,label\n" + "".join(f"{i}.wav,{i % 4}\n" for i in range(8))
    )


def test_equal_clips_with_two_labels_or_splits_are_refused(folder):
    shutil.copy(folder / "0.wav", folder / "copy.wav")
    rows = ["0.wav,a,train", "1.wav,b,train", "2.wav,a,test", "3.wav,b,test"]
    text = "file,label,split\n" + "\n".join(rows)
    pair = r"line 2: 0\.wav and line 6: copy\.wav: "
    for row, what in (
        ("copy.wav,b,train", "label 'a' and 'b'"),
        ("copy.wav,a,test", "split 'train' and 'test'"),
    ):
        with pytest.raises(DataError, match=rf"D47[\s\S]*1 pair of[\s\S]*{pair}{what}"):
            load(folder, f"{text}\n{row}\n")
        data = load(folder, f"{text}\n{row}\n", equal_clips=True)
        (warning,) = [w for w in data.facts["warnings"] if "repeat" in w]
        assert warning.startswith("1 of 5 clips repeat") and "copy.wav" in warning
    # Parts of files with equal content are those of one file.
    spans = (
        text.replace("split\n", "split,start,end\n") + "\ncopy.wav,a,test,0.01,0.19\n"
    )
    with pytest.raises(DataError, match=r"D47[\s\S]*copy\.wav@0.01-0.19: overlap, spl"):
        load(folder, spans)
    spans = spans.replace("0.wav,a,train", "0.wav,a,train,0,0.1").replace("0.01", "0.1")
    with pytest.raises(DataError, match=r"D10.*'0\.wav = copy\.wav' is in splits"):
        load(folder, spans)


def test_equal_clips_stay_together_in_a_random_split(folder):
    for i in range(8):
        shutil.copy(folder / f"{i}.wav", folder / f"copy_{i}.wav")
    rows = [f"{name}{i}.wav,{'ab'[i % 2]}" for i in range(8) for name in ("", "copy_")]
    data = load(folder, "\n".join(["file,label", *rows]))
    for split in ("train", "valid", "test"):
        names = [name.removeprefix("copy_") for name in data.example_id_list(split)]
        assert all(names.count(name) == 2 for name in names)


def test_two_spellings_of_a_speaker_are_one(folder):
    speakers = ("P1", "p1", "P 1", "x", "y", "z", "x", "y")
    rows = [f"{i}.wav,{'ab'[i % 2]},{name}" for i, name in enumerate(speakers)]
    data = load(folder, "\n".join(["file,label,speaker", *rows]))
    assert sorted(sum(map(list, data.groups.values()), [])) == ["P 1", "x", "y", "z"]
    assert any(
        "'P 1', 'P1', 'p1' differ in spelling" in w for w in data.facts["warnings"]
    )


@pytest.mark.parametrize(
    ("count", "fix"), [(1, "speaker_column= splits"), (2, "val_fraction=0 splits")]
)
def test_too_few_speakers_name_what_works(folder, count, fix):
    rows = [f"{i}.wav,{'ab'[i // 2 % 2]},s{i % count}" for i in range(8)]
    text = "\n".join(["file,label,speaker", *rows])
    with pytest.raises(DataError, match=rf"D45.*too few speakers[\s\S]*{fix}"):
        load(folder, text)
    option = {"val_fraction": 0.0} if count == 2 else {"speaker_column": ""}
    assert len(load(folder, text, **option).sources["test"])


def test_files_without_a_row_and_classes_without_test_clips_are_remarked(folder):
    rows = "0.wav,a,train\n1.wav,b,train\n2.wav,a,test\n"
    warnings = "\n".join(load(folder, "file,label,split\n" + rows).facts["warnings"])
    assert "5 media files in the folder have no row in labels.csv: 3.wav" in warnings
    assert "1 of 2 classes have no clip in test: 'b'" in warnings


def test_segments_of_a_long_film_have_different_keys(folder):
    rows = "0.wav,a,7200.125,7200.5\n0.wav,b,7200.126,7200.5\n"
    found = labels(folder, "file,label,start,end\n" + rows).rows
    assert [row.segment for row in found] == ["@7200.125-7200.5", "@7200.126-7200.5"]


@pytest.mark.parametrize(
    "text, line, seen",
    [
        # Nothing closes it: the reader takes the rest of the file for one cell.
        ('0.wav,a\n1.wav,b\n"2.wav,a\n3.wav,b\n', 4, "not closed.*up to line 5"),
        ('0.wav,"a\n1.wav,b\n', 2, "before 'a' is not closed.*up to line 3"),
        # The next quotation mark closes it.
        ('"0.wav,a\n1.wav,b\n"2.wav",a\n', 2, "closed in line 4, before '2.wav\",a'"),
        ('0.wav,"a\n1.wav","b"\n', 2, "label is a quoted cell of 2 lines"),
        ('0.wav,a\n"1.wav,b\n2.wav","a"\n', 3, "from '1.wav,b' to '2.wav'"),
        # Before it are a doubled mark, a closed cell and a transcript of two lines.
        ('"0.wav",a,"so ""good""\nyes"\n1.wav,b,"no\n', 4, "before 'no' is not closed"),
        ('0.wav,a,"so"good\n', 2, "before 'so\"good' is closed in line 2"),
    ],
)
def test_a_quotation_mark_without_its_pair_is_named(folder, text, line, seen):
    with pytest.raises(DataError, match=rf"labels.csv line {line}: .*{seen}") as caught:
        labels(folder, f"file,label,text\n{text}", text_column="text")
    assert "quotation mark" in str(caught.value)
    assert "close it at the end of the cell" in caught.value.fix


def test_an_open_quotation_mark_in_a_long_file_is_named(folder):
    """The reader of the standard library reports a cell of 131,072 characters."""
    rows = "".join(f"{i}.wav,a\n" for i in range(20_000))
    with pytest.raises(DataError, match=r"line 1: the quotation mark before 'file,lab"):
        labels(folder, f'"file,label\n{rows}')


def test_a_transcript_can_have_several_lines(folder):
    text = 'file,label,text\n0.wav,a,"so\ngood"\n1.wav,b,no\n'
    rows = labels(folder, text, text_column="text").rows
    assert [(row.line, row.text) for row in rows] == [(2, "so\ngood"), (4, "no")]


ROWS = "file,label{}\n0.wav,a{}\n1.wav,b{}\n2.wav,a{}\n3.wav,b{}\n"


@pytest.mark.parametrize(
    ("rest", "message"),
    [("File, Label\n4.wav,a\n", ".*header")],
)
def test_a_line_that_is_not_a_row_is_named(folder, rest, message):
    with pytest.raises(DataError, match=f"D41.*line 6.? {message}"):
        labels(folder, ROWS.format(*[""] * 5) + rest)


def test_the_fix_fits_the_way_of_the_split(folder):
    with pytest.raises(DataError, match="split 'test' is empty") as error:
        load(folder, ROWS.format(",split", *[",train"] * 4))
    assert "random" not in str(error.value)
    with pytest.raises(DataError, match="split 'test' is empty") as error:
        load(folder, "file,label\n0.wav,a\n1.wav,b\n")
    assert "add clips: every class" in str(error.value)


def test_times_in_milliseconds_are_recognized(folder):
    text = ROWS.format(",start,end", *[",0,150"] * 4)
    with pytest.raises(DataError, match="D43") as error:
        load(folder, text)
    assert (
        "exceeds the clip, which ends at 0.20 s; milliseconds would fit: 0-0.15 s"
        in (str(error.value))
    )
    assert "fix: replace these files, or correct their start" in str(error.value)
    # Neither is far beyond the end and within it as milliseconds.
    for end in ("0.9", "900"):
        with pytest.raises(DataError, match="exceeds the clip") as error:
            load(folder, ROWS.format(",start,end", *[f",0,{end}"] * 4))
        assert "milliseconds" not in str(error.value)
