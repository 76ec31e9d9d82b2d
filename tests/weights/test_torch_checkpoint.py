"""PyTorch files written opcode by opcode: what they cannot do to this process."""

import io
import resource
import struct
import time
import zipfile

import numpy as np
import pytest
from pickle_kinds import name, text

from mmfusion_jax.errors import WeightsError
from mmfusion_jax.safe_load import torch_objects
from mmfusion_jax.safe_load.torch_objects import MAX_PICKLE
from mmfusion_jax.weights.files import read
from mmfusion_jax.weights.torch_checkpoint import InvalidTensorFile, read_torch

NESTED = b"]" + b"2\x86" * 60  # printing or comparing it takes forever
REBUILD = name("torch._utils", "_rebuild_tensor_v2")


def integer(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def sizes(values) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def storage(kind="FloatStorage", number="0", count=4) -> bytes:
    start = b"(" + text("storage") + name("torch", kind) + text(number)
    return start + text("cpu") + integer(count) + b"tQ"


SHORTER = storage(count=3)


def tensor(size=(2, 2), stride=(2, 1), offset=0, elements=None) -> bytes:
    hooks = name("collections", "OrderedDict") + b")R"
    arguments = (elements or storage()) + integer(offset) + sizes(size) + sizes(stride)
    return REBUILD + b"(" + arguments + b"\x89" + hooks + b"tR"


def state_dict(**tensors: bytes) -> bytes:
    pairs = b"".join(text(key) + value for key, value in tensors.items())
    return b"\x80\x02}(" + pairs + b"u."


def archive(program: bytes, *storages: bytes, method=zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        made.writestr("m/data.pkl", program)
        for number, content in enumerate(storages or [np.arange(4, dtype="<f4")]):
            made.writestr(f"m/data/{number}", bytes(content))
    return file.getvalue()


def build(target: bytes, attribute: str) -> bytes:
    return b"\x80\x02" + target + b"}" + text(attribute) + b"K\x07\x85sb."


@pytest.fixture
def saved(tmp_path):
    def write(content: bytes):
        file = tmp_path / "weights.pt"
        file.write_bytes(content)
        return file

    return write


def test_tensors_are_read(saved):
    program = state_dict(w=tensor(), turned=tensor(stride=(1, 2)), one=tensor((), ()))
    got = read_torch(saved(archive(program)))
    np.testing.assert_array_equal(got["w"], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(got["turned"], [[0, 2], [1, 3]])
    assert got["one"].shape == () and got["one"].dtype == np.float32


def test_contiguous_tensors_of_a_storage_share_its_elements(saved):
    got = read_torch(saved(archive(state_dict(a=tensor(), b=tensor((2,), (1,), 1)))))
    assert np.shares_memory(got["a"], got["b"])


def test_only_the_returned_tensors_are_read(saved):
    other = state_dict(x=tensor(elements=storage(number="absent")))[2:-1]
    program = b"\x80\x02}(" + text("model") + state_dict(w=tensor())[2:-1]
    program += text("optimizer") + other + b"u."
    assert list(read_torch(saved(archive(program)))) == ["w"]


def test_the_attributes_of_a_state_dict_are_discarded(saved):
    ordered = name("collections", "OrderedDict") + b")R" + text("w") + tensor() + b"s"
    program = b"\x80\x02" + ordered + b"}" + text("_metadata") + b"}sb."
    assert list(read_torch(saved(archive(program)))) == ["w"]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (state_dict(w=tensor((200_000_000,), (0,))), "larger than their storages"),
        (state_dict(w=tensor((10**13,), (0,))), "larger than their storages"),
        (state_dict(w=tensor((2**59, 2**59), (0, 0))), "too large"),
        (state_dict(w=tensor((0, 2**59, 9), (1, 1, 1))), "too large"),
        (state_dict(w=tensor((2,), (1,), offset=3)), "out of bounds"),
        (state_dict(w=tensor((2,), (-1,))), "must be integers"),
        (state_dict(w=tensor((1,) * 65, (1,) * 65)), "do not match"),
        (state_dict(w=tensor(elements=storage(count=2**40))), "4 of 1099511627776"),
        (state_dict(w=tensor(elements=storage(count=-1))), "invalid storage"),
        (state_dict(w=tensor(elements=storage("eval"))), "is a program object"),
        (state_dict(w=tensor(), v=tensor((2,), (1,), 0, SHORTER)), "two sizes"),
        (b"\x80\x02(" + NESTED + b"K\x01K\x02K\x03K\x04tQ.", "invalid storage"),
        (REBUILD + b"(K\x01K\x00" + NESTED + b")tR.", "without a storage"),
        (build(REBUILD, "__defaults__"), "unsupported object state"),
        (build(name("torch", "FloatStorage"), "name"), "unsupported object state"),
        (build(storage(), "shape"), "unsupported object state"),
        (name("numpy", "dtype") + text("O8") + b"\x85R.", "is a program object"),
        (b"\x80\x02" + b"]" * MAX_PICKLE + b".", "too large"),
        (b"Np300000000\n.", "out of range"),
        (b"(" * 100_000 + b"t" * 100_000 + b".", "nested"),
        (name("x" * 100_000, "y") + b".", "y' is a program object"),
        (b"NQ.", "invalid storage"),
    ],
    ids=range(22),
)
def test_files_that_are_rejected(saved, program, message):
    file = saved(archive(program))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    with pytest.raises(InvalidTensorFile, match=message) as caught:
        read_torch(file)
    assert len(str(caught.value)) <= 400
    assert time.monotonic() - began < 10
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000  # kB


def test_nothing_in_this_process_changes(saved):
    defaults = torch_objects._tensor.__defaults__
    with pytest.raises(InvalidTensorFile):
        read_torch(saved(archive(build(REBUILD, "__defaults__"))))
    assert torch_objects._tensor.__defaults__ is defaults


def test_copies_have_a_budget(saved):
    turned = {f"t{k}": tensor((2, 2), (1, 2)) for k in range(400)}
    content = archive(state_dict(**turned))
    assert len(read_torch(saved(content))) == 400  # the description is larger
    count = 1_000_000
    elements = storage(count=count)
    turned = {f"t{k}": tensor((10, 100_000), (1, 10), 0, elements) for k in range(9)}
    with pytest.raises(InvalidTensorFile, match="larger than their storages"):
        read_torch(saved(archive(state_dict(**turned), bytes(4 * count))))


def test_compressed_and_overlapping_entries_are_rejected(saved):
    content = archive(state_dict(w=tensor()), method=zipfile.ZIP_DEFLATED)
    with pytest.raises(InvalidTensorFile, match="is compressed"):
        read_torch(saved(content))
    # The second entry starts inside of the first, and both extend to its end.
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 50_000, 50_000, 8, 0)
    nested = local + b"m/data/1" + bytes(50_000)
    two = {"a": storage("ByteStorage", "0", len(nested))}
    two["b"] = storage("ByteStorage", "1", 50_000)
    program = state_dict(**{k: tensor((9,), (1,), 0, v) for k, v in two.items()})
    raw = bytearray(archive(program, nested, bytes(50_000)))
    second = raw.rindex(b"PK\1\2")
    start = raw.index(nested)
    raw[second + 42 : second + 46] = struct.pack("<I", start)
    first_copy = raw.index(b"PK\3\4", start + len(nested))
    end = raw.index(b"PK\1\2")
    del raw[first_copy:end]
    at = raw.rindex(b"PK\5\6") + 16
    raw[at : at + 4] = struct.pack("<I", first_copy)
    with pytest.raises(InvalidTensorFile, match="overlap"):
        read_torch(saved(bytes(raw)))


def test_the_error_of_a_weights_file_is_short(saved):
    with pytest.raises(WeightsError, match="W02") as caught:
        read(saved(archive(name("x" * 100_000, "y") + b".")), "export")
    assert len(str(caught.value)) < 1000
