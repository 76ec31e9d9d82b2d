"""Reads the raw files of AV-MNIST: MNIST, spoken digits, noise clips."""

import dataclasses
import gzip
import hashlib
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from mmfusion_jax.data.datasets.av_mnist.generate import RATE
from mmfusion_jax.data.media import decode
from mmfusion_jax.data.storage import worker_pool
from mmfusion_jax.data.storage.progress import track
from mmfusion_jax.errors import DataError, shorten, shown_name, shown_path
from mmfusion_jax.safe_load.npz import read_npz

MNIST, SPEECH = "mnist.npz", "fsdd.npz"
# The "?" is "-" or ".", which differ between copies; the "*" may be ".gz".
IDX = {
    "x_train": "train-images?idx3-ubyte*",
    "y_train": "train-labels?idx1-ubyte*",
    "x_test": "t10k-images?idx3-ubyte*",
    "y_test": "t10k-labels?idx1-ubyte*",
}
FSDD = ("samples", "offsets", "digit", "speaker", "index", "sample_rate")
# Names of FSDD, and of ESC-10 and ESC-50, in which a class may precede the fold.
SPOKEN = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<number>\d+)\.wav")
NOISE = re.compile(r"(?:\d+_)?(?P<fold>[1-5])-\d+-[A-Z](?:-\d+)?\.(?:ogg|wav)")
EXPECTED_LAYOUT = """\
  folder/mnist.npz             x_train, y_train, x_test, y_test; or the four files of
      MNIST: train-images-idx3-ubyte, ..., compressed as .gz or not
  folder/fsdd.npz              the Free Spoken Digit Dataset in one file; or its
      recordings, 0_jackson_0.wav .. 9_yweweler_49.wav
      https://github.com/Jakobovski/free-spoken-digit-dataset
  folder/1-100032-A.ogg ..     clips of ESC-10 or ESC-50, the fold first in the name
      https://github.com/karolpiczak/ESC-50
All at any depth."""
FALLBACK_HINT = (
    "python -m mmfusion_jax.main --config=configs/hetero_fusion_net.py:digits "
    "runs on embedded data, without AV-MNIST"
)
MAX_IDX_BYTES = 1 << 26
"""Maximum size of an uncompressed file of MNIST."""


@dataclasses.dataclass(frozen=True)
class AudioFile:
    """A recording or a noise clip.

    Attributes:
        name: Unique name.
        samples: (t) int16 at `RATE`.
        number: Number of the recording among those of a speaker and digit; fold of a
            noise clip.
        digit: The spoken digit; -1 for noise.
        speaker: Name of the speaker; "" for noise.
    """

    name: str
    samples: np.ndarray
    number: int
    digit: int = -1
    speaker: str = ""


@dataclasses.dataclass(frozen=True)
class RawFiles:
    """Raw files of a folder.

    Attributes:
        mnist: The npz file, or four files in the order of `IDX`.
        speech: The npz file, or the recordings.
        noise: The noise clips.
    """

    mnist: tuple[Path, ...]
    speech: tuple[Path, ...]
    noise: tuple[Path, ...]

    @property
    def sha256(self) -> str:
        """A hash of the content of all files."""
        # Not of their paths: a folder that was moved or copied is not built again.
        total = hashlib.sha256()
        for file in (*self.mnist, *self.speech, *self.noise):
            with file.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
        return total.hexdigest()


def find(folder: Path, written: str) -> RawFiles:
    """Finds the raw files in a folder.

    Args:
        folder: Folder to search, at any depth.
        written: The folder as the user wrote it, for the message.

    Raises:
        DataError: MNIST, the spoken digits or the noise clips are missing.
    """
    files = sorted(folder.rglob("*"), key=lambda path: path.name)
    one = lambda name: tuple(path for path in files if path.name == name)[:1]
    matching = lambda regex: tuple(p for p in files if regex.fullmatch(p.name))
    first = lambda pattern: [path for path in files if path.match(pattern)][:1]
    idx = tuple(path for pattern in IDX.values() for path in first(pattern))
    raw = RawFiles(
        one(MNIST) or (idx if len(idx) == len(IDX) else ()),
        one(SPEECH) or matching(SPOKEN),
        matching(NOISE),
    )
    named = {"MNIST": raw.mnist, "spoken digits": raw.speech, "noise clips": raw.noise}
    if missing := [name for name, found in named.items() if not found]:
        raise DataError(
            "D40",
            f"{shown_path(written)} contains no "
            f"{' and no '.join(map(shown_name, missing))}. Expected layout:\n"
            f"{EXPECTED_LAYOUT}",
            FALLBACK_HINT,
        )
    return raw


def read_mnist(raw: RawFiles) -> dict[str, np.ndarray]:
    """Returns the arrays of `IDX`: images (n 28 28) and digits (n), uint8.

    Raises:
        DataError: A file is damaged, or its content is invalid.
    """
    if len(raw.mnist) == 1:
        arrays = read_npz(raw.mnist[0], tuple(IDX))
    else:
        arrays = dict(zip(IDX, map(_idx, raw.mnist), strict=True))
    for split in ("train", "test"):
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
        valid = x.shape[1:] == (28, 28) and y.shape == x.shape[:1] and len(x) > 1
        if not valid or {x.dtype.name, y.dtype.name} != {"uint8"} or y.max() > 9:
            raise _invalid(
                raw.mnist[0],
                f"{split} has images {x.dtype.name} {x.shape} and digits "
                f"{y.dtype.name} {y.shape}; expected (n 28 28) and (n) uint8, 0 to 9",
            )
    return arrays


def read_speech(raw: RawFiles, processes: int | None) -> list[AudioFile]:
    """Reads the recordings.

    Args:
        raw: The raw files.
        processes: Number of processes that decode audio files, see
            `worker_pool.map_in_processes`.

    Raises:
        DataError: A file is damaged, or its content is invalid.
    """
    if raw.speech[0].name == SPEECH:
        return _fsdd(raw.speech[0])
    decoded = decode_all(raw.speech, processes, "reading spoken digits")
    recordings = zip(raw.speech, decoded, strict=True)
    return [_recording(path, samples) for path, samples in recordings]


def read_noise(raw: RawFiles, processes: int | None) -> list[AudioFile]:
    """Reads the noise clips; arguments and errors are those of `read_speech`."""
    decoded = decode_all(raw.noise, processes, "reading noise clips")
    clips = []
    for path, samples in zip(raw.noise, decoded, strict=True):
        if not samples.any():
            raise _invalid(path, "the clip is silent")
        fold = int(_matched(NOISE, path)["fold"])
        clips.append(AudioFile(path.stem, samples, fold))
    return clips


def decode_all(
    files: Sequence[Path], processes: int | None, what: str
) -> Iterable[np.ndarray]:
    """Decodes the audio of each file, (t) int16 at `RATE`."""
    results = worker_pool.map_in_processes(_decode, files, workers=processes)
    for path, result in zip(files, track(results, len(files), what), strict=True):
        if isinstance(result, worker_pool.Failure):
            raise _invalid(path, result.reason.rstrip("."))
        yield result


def _decode(path: Path) -> np.ndarray:
    """Decodes the audio of a file, in a worker process."""
    waveform = decode.read(
        path, None, decode.AudioSampling(RATE, min_samples=1)
    ).waveform
    if waveform is None:
        raise DataError("D31", f"{path} has no audio.")
    return np.clip(np.rint(32768 * waveform), -32768, 32767).astype(np.int16)


def _recording(path: Path, samples: np.ndarray) -> AudioFile:
    """Returns a recording with the fields of its file name."""
    fields = _matched(SPOKEN, path)
    number, digit = int(fields["number"]), int(fields["digit"])
    return AudioFile(path.stem, samples, number, digit, fields["speaker"])


def _fsdd(path: Path) -> list[AudioFile]:
    """Returns all recordings of the npz file."""
    x = read_npz(path, FSDD)
    ends, count = x["offsets"], x["digit"].size
    integers = ("offsets", "digit", "index")
    # Functions, called in order: a check assumes that those before it hold.
    checks: dict[str, Callable[[], bool]] = {
        "offsets, digit and index must be (n) integers": lambda: all(
            x[name].ndim == 1 and x[name].dtype.kind in "iu" for name in integers
        ),
        "samples must be (t) int16": lambda: (
            x["samples"].ndim == 1 and x["samples"].dtype == np.int16
        ),
        f"sample_rate must be {RATE}": lambda: x["sample_rate"].tolist() == RATE,
        "offsets must increase from 0 to the number of samples": lambda: (
            ends.shape == (count + 1,)
            and bool((np.diff(ends) > 0).all())
            and (ends[0], ends[-1]) == (0, len(x["samples"]))
        ),
        "speaker, index and digit must have the same length": lambda: (
            x["speaker"].shape == x["index"].shape == x["digit"].shape
        ),
        "digits must be 0 to 9": lambda: bool(np.isin(x["digit"], range(10)).all()),
    }
    for requirement, is_met in checks.items():
        if not is_met():
            raise _invalid(path, requirement)
    rows = zip(
        x["digit"].tolist(),
        map(str, x["speaker"].tolist()),
        x["index"].tolist(),
        strict=True,
    )
    return [
        AudioFile(f"{d}_{name}_{i}", x["samples"][ends[n] : ends[n + 1]], i, d, name)
        for n, (d, name, i) in enumerate(rows)
    ]


def _idx(path: Path) -> np.ndarray:
    """Reads an IDX file: two zeros, a type, the number of axes, their sizes, bytes."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as stream:
            # Bounded, since a small .gz file can decompress to any size; what is cut
            # off does not match the shape below.
            raw = stream.read(MAX_IDX_BYTES)
        kind, axes = struct.unpack(">HBB", raw[:4])[1:]
        shape = struct.unpack(f">{axes}I", raw[4 : 4 + 4 * axes])
        values = np.frombuffer(raw, np.uint8, offset=4 + 4 * axes)
    except (OSError, EOFError, ValueError, zlib.error, struct.error) as error:
        raise _invalid(path, f"not readable: {shorten(error)}") from error
    if kind != 8 or values.size != math.prod(shape):
        raise _invalid(
            path, f"has {values.size} bytes, but the shape {shape} in its header"
        )
    return values.reshape(shape)


def _matched(regex: re.Pattern[str], path: Path) -> re.Match[str]:
    """Returns the fields of a file name; `find` returns only matching names."""
    found = regex.fullmatch(path.name)
    assert found is not None
    return found


def _invalid(path: Path, what: str) -> DataError:
    """Returns the error for an invalid raw file."""
    return DataError("D52", f"{path}: {what}.", "copy or download it again")
