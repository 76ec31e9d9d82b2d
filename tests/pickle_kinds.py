"""Small pickles of every common layout, and opcodes to write invalid ones."""

import pickle
import struct
from collections import OrderedDict, defaultdict

import numpy as np

RNG = np.random.default_rng(0)
MMSA = {
    split: {
        "text": RNG.normal(size=(2, 3, 4)).astype("f4"),
        "text_bert": RNG.integers(0, 9, (2, 3, 3)).astype("f4"),
        "raw_text": np.array(["so good", "très bien"]),
        "id": ["a$_$1", "b$_$2"],
        "audio_lengths": [3, 2],
        "regression_labels": np.array([0.5, -3.0], "f4"),
    }
    for split in ("train", "valid")
}
MISA = [
    ((np.arange(3), RNG.normal(size=(3, 2)), ["a", "b"], 3), np.float32([[1]]), "v"),
    ((np.arange(2), RNG.normal(size=(2, 2)), ["c"], np.int64(2)), np.eye(1), "w"),
]
DEAP = {"data": RNG.normal(size=(2, 2, 3)), "labels": np.full((2, 4), 5.0)}
MIXED = (
    OrderedDict(a=1, b=2.5),
    defaultdict(list, {"x": [True, None]}),
    {1, 2},
    frozenset("z"),
    [b"", b"raw", bytearray(b"own"), 1 << 70, -1, 300, 70000],
    np.array([1, "two", None], object),
    np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
    np.array(7, "u1"),
    np.bool_(True),
    np.str_("word"),
)
KINDS = (MMSA, MISA, DEAP, MIXED)

# Written by Python 2: arrays as strings, in protocols 2 and 0.
PYTHON2 = (
    b"\x80\x02}q\x00U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\n"
    b"ndarray\nq\x03K\x00\x85U\x01bq\x04\x87R(K\x01K\x02\x85cnumpy\ndtype\nq\x05"
    b"U\x02f4q\x06K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
    b"K\x00tb\x89U\x08\x00\x00\x80?\x00\x00 \xc0tbs."
)
PYTHON2_LINES = (
    b"(dp0\nS'data'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\n"
    b"p3\n(I0\ntp4\nS'b'\np5\ntp6\nRp7\n(I1\n(L2L\ntp8\ncnumpy\ndtype\np9\n(S'f4'\n"
    b"p10\nI0\nI1\ntp11\nRp12\n(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\ntp14\nbI00\n"
    b"S'\\x00\\x00\\x80?\\x00\\x00 \\xc0'\np15\ntp16\nbs."
)


def originals() -> list[bytes]:
    """Returns every layout at every protocol."""
    made = [pickle.dumps(kind, p) for kind in KINDS for p in range(6)]
    return [*made, PYTHON2, PYTHON2_LINES]


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def raw(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def dtype(code: str, state: bytes = b"(K\x03" + text("|") + b"NNNKZKZK\x00tb") -> bytes:
    """Returns a dtype with a state, where KZ is -1 and the last K is the flags."""
    state = state.replace(b"KZ", b"J\xff\xff\xff\xff")
    return name("numpy", "dtype") + text(code) + b"\x89\x88\x87R" + state


def array(dtype: bytes, content: bytes, shape: bytes = b"K\x01\x85") -> bytes:
    """Returns an array of any dtype with any content."""
    core = name("numpy.core.multiarray", "_reconstruct")
    start = core + name("numpy", "ndarray") + b"K\x00\x85" + raw(b"b") + b"\x87R"
    return start + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb"


def scalar(dtype: bytes, content: bytes) -> bytes:
    return name("numpy.core.multiarray", "scalar") + dtype + content + b"\x86R"


def numbers(content: bytes = b"\0" * 8, shape: bytes = b"K\x01\x85") -> bytes:
    """Returns an array of float64."""
    state = b"(K\x03" + text("<") + b"NNNKZKZK\x00tb"
    return array(dtype("f8", state), raw(content), shape)
