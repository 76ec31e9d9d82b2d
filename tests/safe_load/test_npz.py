"""Damaged and hostile npz files: each is read, or is one error with its code."""

import io
import random
import struct
import warnings
import zipfile

import numpy as np
import pytest

from mmfusion_jax.errors import DataError
from mmfusion_jax.safe_load.npz import MAX_MEMBERS, read_npz

ARRAYS = {
    "text": np.arange(24, dtype="f4").reshape(2, 3, 4),
    "turned": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
    "id": np.array(["a", "é"]),
    "one": np.array(3),
    "none": np.zeros((0, 3)),
}


def saved(save, **arrays) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def member(descr="'<f4'", shape="(1,)", data=b"\0" * 4, header="", version=1) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    text = header or text
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode() + data


def zipped(*members: bytes, method=zipfile.ZIP_STORED, name="a.npy") -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # a name that occurs twice
        for content in members:
            archive.writestr(name, content)
    return file.getvalue()


def changed(field: int, value: int, content: bytes | None = None) -> bytes:
    """Returns an archive with two bytes of its directory changed."""
    made = bytearray(content or zipped(member()))
    start = made.rindex(b"PK\1\2") + field
    made[start : start + 2] = struct.pack("<H", value)
    return bytes(made)


def flipped(save) -> bytes:
    made = bytearray(saved(save, a=np.arange(1000.0)))
    made[len(made) // 2] ^= 1
    return bytes(made)


def many() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(MAX_MEMBERS + 1):
            archive.writestr(f"{number}.npy", b"")
    return file.getvalue()


def read(tmp_path, content: bytes, *names):
    file = tmp_path / "file.npz"
    file.write_bytes(content)
    return read_npz(file, names or None)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_equal_those_of_numpy(tmp_path, save):
    got = read(tmp_path, saved(save, **ARRAYS))
    assert got.keys() == ARRAYS.keys()
    for name, want in ARRAYS.items():
        assert got[name].dtype == want.dtype and got[name].flags.writeable
        assert got[name].flags.f_contiguous == want.flags.f_contiguous
        np.testing.assert_array_equal(got[name], want)
    assert list(read(tmp_path, saved(save, **ARRAYS), "id")) == ["id"]


CASES = {
    "flipped byte": (lambda: flipped(np.savez), "Bad CRC-32"),
    "flipped compressed byte": (lambda: flipped(np.savez_compressed), "cannot be read"),
    "encrypted": (lambda: changed(8, 1), "is encrypted"),
    "unknown method": (lambda: changed(10, 99), "compression method 99"),
    "lzma": (lambda: zipped(member(), method=zipfile.ZIP_LZMA), "method 14"),
    "version": (lambda: changed(6, 239), "zip file version"),
    "cut string": (lambda: zipped(member(header="{'descr': '<f4")), "cannot be read"),
    "cut bracket": (lambda: zipped(member(header="{'descr': (")), "cannot be read"),
    "signs": (lambda: zipped(member(shape="-" * 9000 + "1")), "is corrupted"),
    "many": (many, f"has {MAX_MEMBERS + 1} arrays"),
    "claim": (lambda: zipped(member(shape="(15_000_000_000,)")), "do not match"),
    "large claim": (lambda: zipped(member(shape=f"({10**30},)")), "do not match"),
    "wrapping": (lambda: zipped(member(shape="(4294967296,) * 2")), "cannot be read"),
    "negative": (lambda: zipped(member(shape="(-1, -1)")), "do not match"),
    "trailing": (lambda: zipped(member(data=b"\0" * 5)), "do not match"),
    "endless": (lambda: zipped(member("'|V0'", f"({10**12},)", b"")), "of 0 bytes"),
    "object": (lambda: zipped(member("'|O'")), "requires pickle"),
    "npy version": (lambda: zipped(member(version=9)), "npy version"),
    "twice": (lambda: zipped(member(), member()), "the same name"),
    "other file": (lambda: zipped(b"text"), "cannot be read"),
    "not a zip": (lambda: b"PK\3\4", "not a zip file"),
    "npy": (member, "not a zip file"),
    "bomb": (
        lambda: zipped(bytes(LARGE_BOMB), method=zipfile.ZIP_DEFLATED),
        "would unpack to 0.1 GB",
    ),
}
LARGE_BOMB = 80 << 20


@pytest.mark.parametrize("case", CASES)
def test_damaged_files_are_one_error(tmp_path, case):
    make, message = CASES[case]
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, make())
    assert caught.value.code == "D52" and caught.value.fix
    assert len(str(caught.value)) < 600


def test_a_missing_array_is_named(tmp_path):
    with pytest.raises(DataError, match="D52.*has no array 'video.npy'"):
        read(tmp_path, saved(np.savez, text=np.ones(2)), "text", "video")


def test_other_members_are_ignored(tmp_path):
    assert read(tmp_path, zipped(b"note", name="README")) == {}


def test_corrupted_files_raise_no_other_exception(tmp_path):
    rng = random.Random(0)
    originals = [saved(save, **ARRAYS) for save in (np.savez, np.savez_compressed)]
    ends = {"read": 0, "D52": 0}
    for _ in range(1000):
        content = bytearray(rng.choice(originals))
        for _ in range(rng.choice([1, 1, 3])):
            at = rng.randrange(len(content))
            match rng.randrange(3):
                case 0:
                    content[at] ^= 1 << rng.randrange(8)
                case 1:
                    del content[at : at + rng.choice([1, 60])]
                case 2:
                    content[at : at + 4] = rng.choice([b"\0" * 4, b"\xff" * 4])
        try:
            read(tmp_path, bytes(content))
            ends["read"] += 1
        except DataError as error:
            ends[error.code] += 1
    assert min(ends.values()) > 10
