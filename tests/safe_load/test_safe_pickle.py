"""Pickles of plain data are read as Python reads them; all others are rejected."""

import itertools
import os
import pickle
import struct
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pickle_kinds import (
    KINDS,
    PYTHON2,
    PYTHON2_LINES,
    array,
    dtype,
    name,
    numbers,
    raw,
    scalar,
    text,
)

from mmfusion_jax.errors import DataError
from mmfusion_jax.safe_load.safe_pickle import RejectedPickleFile, read_pickle

PROTOCOLS = range(6)
ADDRESS = raw(b"\x41" * 8)
OBJECT = dtype("O8")  # the flags in its state are those of plain numbers


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("pickles") / "file.pkl"


def read(file, content: bytes, **options):
    file.write_bytes(content)
    return read_pickle(file, **options)


def rejection(file, content: bytes) -> RejectedPickleFile:
    with pytest.raises(RejectedPickleFile) as caught:
        read(file, content)
    return caught.value


def same(got, want) -> bool:
    """Bitwise equal, apart from the types that read_pickle simplifies."""
    if isinstance(want, np.ndarray):
        if want.dtype == object:
            return got.shape == want.shape and same(got.tolist(), want.tolist())
        want = want.astype(want.dtype.newbyteorder("="))
        alike = got.dtype == want.dtype and got.shape == want.shape
        return alike and got.tobytes() == want.tobytes() and got.flags.writeable
    if isinstance(want, np.generic):
        return type(got) is type(want.item()) and np.asarray(got, want.dtype) == want
    if isinstance(want, dict):
        keys = list(got) == list(want) and type(got) is dict
        return keys and all(same(got[key], want[key]) for key in want)
    if isinstance(want, list | tuple):
        alike = type(got) is type(want) and len(got) == len(want)
        return alike and all(map(same, got, want))
    if isinstance(want, bytearray):
        return got == bytes(want) and type(got) is bytes
    return got == want and type(got) is type(want)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_common_layouts_are_read(file, kind, protocol):
    assert same(read(file, pickle.dumps(KINDS[kind], protocol)), KINDS[kind])


DTYPES = st.one_of(
    arrays.boolean_dtypes(),
    arrays.integer_dtypes(endianness="?"),
    arrays.unsigned_integer_dtypes(endianness="?"),
    arrays.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    arrays.complex_number_dtypes(endianness="?", sizes=(64, 128)),
    arrays.byte_string_dtypes(endianness="?", max_len=5),
    arrays.unicode_string_dtypes(endianness="?", max_len=5),
)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(
    values=arrays.arrays(
        DTYPES, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    ),
    order=st.sampled_from("CFT"),
    protocol=st.sampled_from(PROTOCOLS),
)
def test_arrays_equal_those_of_numpy(file, values, order, protocol):
    values = values.T if order == "T" else np.asarray(values, order=order)
    content = pickle.dumps(values, protocol)
    got, want = read(file, content), pickle.loads(content)
    assert same(got, want)
    assert got.flags.f_contiguous == want.flags.f_contiguous


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [b"", bytearray(), bytearray(b"ab"), np.empty(0), np.empty((3, 0), "U4"), "", ()]
    + [set(), frozenset([(1, "a")]), {}, OrderedDict([("b", 1), ("a", 2)]), 10**3000]
    + [np.float16(0.1), np.int8(-3), np.str_(""), np.bytes_(b"x"), np.complex64(1j)]
    + [np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2), "\udc80", float("inf")],
    ids=lambda value: f"{type(value).__name__}-{str(value)[:9]!r}",
)
def test_odd_values_are_read(file, value, protocol):
    assert same(read(file, pickle.dumps(value, protocol)), value)


@pytest.mark.parametrize("content", [PYTHON2, PYTHON2_LINES])
@pytest.mark.parametrize("encoding", ["latin1", "utf-8", "bytes"])
def test_files_of_python_2_are_read(file, content, encoding):
    got = read(file, content, encoding=encoding)
    assert same(got, {"data": np.array([1.0, -2.5], "f4")})


def test_the_encoding_of_python_2_strings(file):
    content = b"U\x02\xc3\xa9."
    assert read(file, content) == "Ã©"
    assert read(file, content, encoding="utf-8") == "é"
    assert read(file, content, encoding="bytes") == b"\xc3\xa9"
    assert rejection(file, b"U\x01\xe9X\x01\0\0\0\xe9.").code == "D60"
    with pytest.raises(ValueError, match="encoding='ascii' is unknown; known: latin1"):
        read(file, content, encoding="ascii")


def test_shared_objects_stay_shared(file):
    values = np.arange(3.0)
    one, two = read(file, pickle.dumps([values, values]))
    assert one is two


@pytest.mark.parametrize(
    "content",
    [
        array(OBJECT, ADDRESS),
        scalar(OBJECT, ADDRESS),
        array(dtype("O8") + b"0" + dtype("O"), ADDRESS),
        array(
            dtype(
                "V8",
                b"(K\x03" + text("|") + b"N" + text("x") + b"\x85}" + text("x")
                + OBJECT + b"K\x00\x86sK\x08K\x01K\x00tb",
            ),
            ADDRESS,
        ),
        array(dtype("V8"), ADDRESS),
        array(dtype("M8"), ADDRESS),
        array(dtype("f8,O"), ADDRESS),
        array(dtype("f16"), raw(b"\0" * 16)),
        array(dtype("?"), raw(b"\2")),
        array(dtype("b1"), raw(b"\2")),
        array(dtype("U1"), raw(b"\xff" * 4)),
        array(dtype("U0"), raw(b""), b"J\xff\xff\xff\x7f\x85"),
        numbers(b"\0" * 7),
        numbers(shape=b"J\xff\xff\xff\xff\x85"),
        numbers(shape=b"\x88\x85"),
        numbers(shape=b"M\xff\xffM\xff\xff\x86"),
        numbers(shape=b"(" + b"K\x01" * 9 + b"t"),
        dtype("f8"),
        name("numpy", "ndarray"),
        name("numpy", "ndarray") + b")R",
        name("builtins", "list") + b")R",
        b"K\x01)R",
        b"]Nb",
        name("builtins", "set") + b"K\x01\x85R",
        name("_codecs", "encode") + text("a") + text("rot13") + b"\x86R",
        name("collections", "defaultdict") + name("_codecs", "encode") + b"\x85R",
    ],
)  # fmt: skip
def test_inconsistent_arrays_are_rejected(file, content):
    assert rejection(file, content + b".").code == "D63"


def test_an_object_array_is_read_from_a_list(file):
    got = read(file, array(OBJECT, b"]K\x07a") + b".")
    assert got.dtype == object and got.tolist() == [7]
    assert rejection(file, array(OBJECT, b"]") + b".").code == "D63"


class Act:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("call", ["system", "eval", "nested"])
def test_nothing_in_a_file_runs(file, tmp_path, call, protocol):
    canary = tmp_path / "canary"
    code = f"import os; os.mkdir({str(canary)!r})"
    acts = {
        "system": Act(os.system, f"mkdir {canary}"),
        "eval": Act(eval, f"__import__('os').mkdir({str(canary)!r})"),
        "nested": Act(pickle.loads, pickle.dumps(Act(exec, code), protocol)),
    }
    content = pickle.dumps({"data": np.ones(2), "more": acts[call]}, protocol)
    error = rejection(file, content)
    assert not canary.exists()
    assert error.code == "D61" and "is a program object, not data" in str(error)
    pickle.loads(content)  # the canary would have shown it
    assert canary.exists()


@pytest.mark.parametrize(
    "content",
    [b"Pid\n.", b"NQ.", b"\x82\x01.", b"\x83\x01\0.", b"\x84\x01\0\0\0.", b"N\x98."]
    + [b"(ios\nsystem\n.", b"(No.", b"N)\x81.", b"N)}\x92.", b"\x97."],
)
def test_opcodes_of_programs_are_rejected(file, content):
    assert rejection(file, content).code == "D62"


@pytest.mark.parametrize(
    ("module", "hint"),
    [
        ("torch._utils", "torch.load(weights_only=True)"),
        ("pandas.core.frame", "pandas.read_pickle"),
        ("joblib.numpy_pickle", "joblib.load"),
        ("scipy.sparse._csr", "toarray()"),
        ("sklearn.svm", "npz"),
        ("numpy.core", "npz"),
    ],
)
def test_a_rejection_shows_the_name_its_position_and_a_fix(file, module, hint):
    error = rejection(file, b"]" + name(module, "multiarray._reconstruct") + b")Ra.")
    assert error.name == f"{module}.multiarray._reconstruct" and error.offset == 1
    assert f"{file} byte 1: '{error.name}' is a program" in str(error)
    assert hint in error.fix


def test_an_array_is_rejected_at_its_position(file):
    broken = numbers(b"\0" * 7)
    error = rejection(file, b"]" + broken + b"a.")
    assert error.offset == 1 + broken.index(b"R", 60) and "requires 8 bytes" in str(
        error
    )


@pytest.mark.parametrize(
    "content",
    [b"", b".", b"N", b"NN", b"N.N.", b"\xff.", b"<html>", b"K", b"U\x05ab.", b"a."]
    + [b"0.", b"e.", b"s.", b"Np1", b"g7\n.", b"h\x07.", b"\x80\x06N.", b"Ix\n."]
    + [b"J\xff\xff\xff.", b"\x8b\xff\xff\xff\xffN.", b"\x8e" + b"\xff" * 8 + b"."]
    + [b"Fx\n.", b"S'a\n.", b"S'\\x4'\n.", b"S'\\d'\n.", b"V\\u1\n.", b"X\1\0\0\0\xff."]
    + [b"(K\x01d.", b"}(K\x01u.", b"\x91.", b"L" + b"9" * 5000 + b"L\n."],
)  # fmt: skip
def test_corrupted_pickles_are_rejected(file, content):
    assert rejection(file, content).code == "D60"


@pytest.mark.parametrize("opcode", [b"B", b"X", b"T", b"\x8b"])
def test_no_memory_is_allocated_for_missing_bytes(file, opcode):
    error = rejection(file, opcode + b"\xff\xff\xff\x7f.")
    assert "2147483647 bytes expected, 1 left." in str(error)


def test_two_pickles_in_one_file_are_rejected(file):
    assert "trailing data" in str(rejection(file, pickle.dumps(1) + pickle.dumps(2)))


def nested(opening: bytes, closing: bytes, depth: int = 200_000) -> bytes:
    return opening * depth + b"N" + closing * depth + b"."


@pytest.mark.parametrize(
    "content",
    [
        b"]q\x00h\x00a.",
        nested(b"]", b"a"),
        nested(b"", b"\x85"),
        nested(b"}N", b"s"),
        nested(b"(", b"\x91"),
        b"N" + b"2\x86" * 60 + b".",
        b"}N" + b"2\x86" * 60 + b"Ns.",
        b"}" + numbers() + b"Ns.",
        b"(" + numbers() + b"\x91.",
    ],
    ids=lambda content: repr(content[:6]),
)
def test_cyclic_and_deep_pickles_are_handled_at_once(file, content):
    began = time.process_time()  # the clock depends on other processes
    if content.startswith(b"N2"):  # shared, not nested too deeply
        read(file, content)
    else:
        assert rejection(file, content).code == "D64"
    assert time.process_time() - began < 5


HASH = 2**61 - 1  # its multiples have the hash 0
LONG = b"\x8b" + struct.pack("<i", 50_000) + b"\x7f" * 50_000
DOUBLED = b"]" + b"2\x86" * 60  # printing or comparing it takes forever
BIG = b"](" + b"N" * 100_000 + b"eq\x000"


def equal_tuples(count: int) -> list[tuple[int, ...]]:
    """Different tuples with the same hash."""
    every = itertools.product([k * HASH for k in range(-7, 8)], repeat=4)
    return [*itertools.islice(every, count)]


def keys(values: Iterable[Any]) -> bytes:
    """The pickle of a dict with these keys, without the dict, which takes seconds."""
    items = b"".join(pickle.dumps(x, 2)[2:-1] + b"N" for x in values)
    return b"}(" + items + b"u."


BOMBS = {
    "memo": lambda: b"Nr\x00\xa3\xe1\x11.",
    "dicts": lambda: (
        BIG + name("collections", "OrderedDict") + b"q\x010]("
        + b"h\x01h\x00\x85R" * 50_000 + b"e."
    ),
    "sets": lambda: (
        BIG + name("builtins", "set") + b"q\x010](" + b"h\x01h\x00\x85R" * 50_000
        + b"e."
    ),
    "hidden": lambda: (
        text("é" * 100_000) + b"q\x000" + text("latin1") + b"q\x010"
        + name("_codecs", "encode") + b"q\x020](" + b"h\x02h\x00h\x01\x86R" * 20_000
        + b"e."
    ),
    "types": lambda: (
        text("f" * 100_000) + b"q\x000" + name("numpy", "dtype") + b"q\x010"
        + b"h\x01h\x00\x85R0" * 20_000 + b"N."
    ),
    "keys": lambda: (
        b"(" + b"N" * 100_000 + b"tq\x000](" + b"}h\x00Ns" * 20_000 + b"e."
    ),
    "hashes": lambda: keys(k * HASH for k in range(20_000)),
    "tuple hashes": lambda: keys(equal_tuples(50_625)),
    "tuple hashes in a set": lambda: pickle.dumps(set(equal_tuples(5000))),
    "memo lines": lambda: (
        b"N" + b"".join(b"p%d\n" % (k * HASH) for k in range(50_000)) + b"."
    ),
    "long memo lines": lambda: b"Np" + b"1" * 400_000 + b"\n.",
    "long sizes": lambda: numbers(shape=b"(" + LONG * 8 + b"t") + b".",
    "long numbers": lambda: b"I" + b"9" * 400_000 + b"\n.",
    "message": lambda: (
        name("numpy.core.multiarray", "_reconstruct") + DOUBLED
        + b"K\x00\x85C\x01b\x87R."
    ),
    "long name": lambda: name("n" * 400_000, "x") + b".",
    "axes": lambda: (
        name("numpy.core.numeric", "_frombuffer") + b"(" + raw(b"\0" * 8)
        + dtype("f8") + b"K\x01K\x01\x86" + text("K") + DOUBLED + DOUBLED + b"\x86tR."
    ),
}  # fmt: skip
"""Name -> how the file is made; for some of them that takes seconds."""


@pytest.mark.parametrize("bomb", BOMBS)
def test_small_files_cannot_cause_much_work(file, bomb):
    file.write_bytes(BOMBS[bomb]())
    began = time.monotonic()
    with pytest.raises(RejectedPickleFile) as caught:
        read_pickle(file)
    assert len(str(caught.value)) < 600
    # Busy machines are slow; without limits it would take minutes.
    assert time.monotonic() - began < 10


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match="does not exist") as caught:
        read_pickle(tmp_path / "none.pkl")
    assert caught.value.code == "D30"


def test_published_files_are_read(real_data):
    folder = real_data / "pickle_samples"
    if not folder.is_dir():
        pytest.skip("no pickle_samples in the real data")
    mosi = read_pickle(folder / "mosi_audio.pickle")
    shapes = [np.shape(part) for part in mosi]
    assert shapes[:5] == [(62, 63, 73), (62, 63), (31, 63, 73), (31, 63), ()]
    assert mosi[0].dtype == np.float64 and mosi[4] == 63
    assert mosi[5][:3] == [35, 30, 30] and mosi[6][:3] == [20, 30, 18]
    split = read_pickle(folder / "must_split.p")
    assert [np.concatenate(fold).size for fold in split] == [690] * 5
    mosei = read_pickle(folder / "jg_mosei_val.pkl")
    assert {k: v.shape[1:] for k, v in mosei.items()} == {
        "language": (768,), "acoustic": (40,), "visual": (35,), "labels": (),
    }  # fmt: skip
    assert all(len(v) == 264 and v.dtype == np.float32 for v in mosei.values())
    assert np.isneginf(mosei["acoustic"]).any()
    with pytest.raises(RejectedPickleFile, match="torch._utils._rebuild_tensor_v2"):
        read_pickle(folder / "io_audio_mel_val.pkl")
