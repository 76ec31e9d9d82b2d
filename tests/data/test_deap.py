"""DEAP: Python 2 pickles read in the sandbox, windows, folds by participant."""

import pickle

import numpy as np
import pytest
from outlines import same_kinds

from mmfusion_jax.data.datasets.deap.prepare import prepare_subject
from mmfusion_jax.data.datasets.deap.windows import RATINGS, load_deap, outline
from mmfusion_jax.errors import ConfigError, DataError

TRIALS, SECONDS = 3, 4
SHAPE = (TRIALS, 40, 128 * (3 + SECONDS))


def tree(seed):
    rng = np.random.default_rng(seed)
    return {
        "data": rng.normal(3, 5, SHAPE),
        "labels": np.resize([1.0, 5.0, 5.1, 9.0], (TRIALS, 4)),
    }


def python2(content):
    """A pickle as Python 2 wrote it: arrays contain str, not bytes."""

    def array(x):
        kind, order = f"{x.dtype.kind}{x.dtype.itemsize}", "<"
        raw = x.astype(x.dtype.newbyteorder("<")).tobytes()
        size = len(raw).to_bytes(4, "little")
        shape = b"".join(b"J" + n.to_bytes(4, "little") for n in x.shape)
        return (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01bt"
            b"R(K\x01(" + shape + b"tcnumpy\ndtype\n(U\x02" + kind.encode() +
            b"K\x00K\x01tR(K\x03U\x01" + order.encode() +
            b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + size + raw + b"tb"
        )  # fmt: skip

    pairs = (b"U" + bytes([len(k)]) + k.encode() + array(v) for k, v in content.items())
    return b"\x80\x02}(" + b"".join(pairs) + b"u."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of three participants."""
    root = tmp_path_factory.mktemp("deap")
    inner = root / "data_preprocessed_python"
    inner.mkdir()
    for i in range(3):
        (inner / f"s{i + 1:02d}.dat").write_bytes(python2(tree(i)))
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    base = tmp_path_factory.getbasetemp() / "deap_cache"
    monkeypatch.setenv("MMFUSION_CACHE", str(base))


def test_the_pickles_are_valid(folder):
    file = folder / "data_preprocessed_python" / "s01.dat"
    found = pickle.loads(file.read_bytes(), encoding="latin1")
    np.testing.assert_array_equal(found["data"], tree(0)["data"])


def test_windows_of_standardized_signals(folder):
    data = load_deap(str(folder), folds=3, window=2, hop=2)
    assert data.facts["counts"] == {"train": 6, "valid": 6, "test": 6}
    assert data.facts["subjects"]["test"] == ["s01"]
    raw = tree(0)["data"][..., 3 * 128 :]
    mean = raw.mean((0, 2))[None, :, None]
    want = (raw - mean) / raw.std((0, 2))[None, :, None]
    assert data.example_id_list("test")[:3] == ["s01/0", "s01/2", "s01/4"]
    example = data.source("test")[3]  # the second window of the second trial
    eeg, rest = example["inputs"]["eeg"], example["inputs"]["peripheral"]
    assert (eeg.shape, rest.shape) == ((256, 32), (256, 8))
    assert eeg.dtype == rest.dtype == np.float32
    got = np.concatenate([eeg, rest], axis=1)
    np.testing.assert_allclose(got, want[1, :, 256:].T, atol=1e-5)
    assert all(mask.all() and len(mask) == 256 for mask in example["masks"].values())


@pytest.mark.parametrize("options", [{}, {"window": 2, "protocol": "fixed_epochs"}])
def test_the_outline_has_the_same_modalities_and_labels(folder, options):
    real = load_deap(str(folder), folds=3, **options)
    same_kinds(real, outline(folds=3, **options))


def test_ratings_above_the_threshold_are_high(folder):
    test = load_deap(str(folder), folds=3, hop=4).source("test")
    labels = [[test[i]["labels"][name] for name in RATINGS] for i in range(TRIALS)]
    assert np.array(labels).tolist() == [[0, 0, 1, 1]] * TRIALS
    data = load_deap(str(folder), folds=3, threshold=5.1)
    assert data.label("test", "dominance").tolist() == [0] * TRIALS * SECONDS
    assert data.classes["valence"] == ("low", "high")


def test_no_participant_is_in_two_splits(folder):
    tested = []
    for fold in range(3):
        groups = load_deap(str(folder), fold=fold, folds=3).groups
        assert sorted(sum(groups.values(), ())) == ["s01", "s02", "s03"]
        tested += groups["test"]
    assert sorted(tested) == ["s01", "s02", "s03"]


def test_invalid_arguments_are_named(folder):
    with pytest.raises(ConfigError, match=r"C06.*folds=8 does not work with 3 groups"):
        load_deap(str(folder))
    for options, said in (
        ({"threshold": 9.0}, "threshold=9.0"),
        ({"window": 0}, "window=0"),
        ({"hop": 0}, "hop=0"),
        ({"window": 5}, "window=5 is longer"),
    ):
        with pytest.raises(ConfigError, match=f"C10.*{said}"):
            load_deap(str(folder), folds=3, **options)


def test_missing_data_is_reported_with_its_source(tmp_path):
    with pytest.raises(
        DataError, match=r"D40.*contains no s.*dat[\s\S]*eecs[\s\S]*fix:.*:di"
    ):
        load_deap(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": None}, r"data is object \(\)"),
        ({"data": np.zeros((TRIALS, 39, 512))}, "39 channels"),
        ({"data": np.zeros((TRIALS, 40, 384))}, "384 samples"),
        ({"data": np.full(SHAPE, np.nan)}, "NaN or infinite"),
        ({"labels": np.full((TRIALS, 4), 0.5)}, "not all from 1 to 9"),
        ({"labels": np.ones((2, 4))}, r"labels are float64 \(2, 4\)"),
    ],
)
def test_invalid_content_is_rejected(tmp_path, change, said):
    content = {k: v for k, v in (tree(0) | change).items() if v is not None}
    (tmp_path / "s01.dat").write_bytes(python2(content))
    with pytest.raises(DataError, match=f"D52.*s01.dat: .*{said}"):
        prepare_subject(str(tmp_path / "s01.dat"), str(tmp_path / "store"))


def test_a_pickle_that_runs_code_is_rejected(tmp_path):
    (tmp_path / "s01.dat").write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    (tmp_path / "s02.dat").write_bytes(python2(tree(0)))
    with pytest.raises(DataError, match=r"D6\d.*s01.dat"):
        load_deap(str(tmp_path), folds=2, protocol="fixed_epochs")
