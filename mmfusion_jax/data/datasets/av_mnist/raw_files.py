"""The parts of AV-MNIST as files: MNIST, spoken digits, noise clips."""

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
from mmfusion_jax.errors import DataError
from mmfusion_jax.safe_load.npz import read_npz

MNIST, SPEECH = "mnist.npz", "fsdd.npz"
IDX = {
    "x_train": "train-images?idx3-ubyte*",
    "y_train": "train-labels?idx1-ubyte*",
    "x_test": "t10k-images?idx3-ubyte*",
    "y_test": "t10k-labels?idx1-ubyte*",
}
FSDD = ("samples", "offsets", "digit", "speaker", "index", "sample_rate")
SPOKEN = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<number>\d+)\.wav")
NOISE = re.compile(r"(?:\d+_)?(?P<fold>[1-5])-\d+-[A-Z](?:-\d+)?\.(?:ogg|wav)")
EXPECTED_LAYOUT = """\
  folder/mnist.npz             x_train, y_train, x_test, y_test; or the four files of
      MNIST: train-images-idx3-ubyte, ..., packed as .gz or not
  folder/fsdd.npz              the Free Spoken Digit Dataset in one file; or its
      recordings, 0_jackson_0.wav .. 9_yweweler_49.wav
      https://github.com/Jakobovski/free-spoken-digit-dataset
  folder/1-100032-A.ogg ..     clips of ESC-10 or ESC-50, the fold first in the name
      https://github.com/karolpiczak/ESC-50
Each may lie at any depth."""
FALLBACK_HINT = (
    "python -m mmfusion_jax.main --config=configs/hetero_fusion_net.py:digits "
    "runs on embedded data, without AV-MNIST"
)
LARGEST = 1 << 26
"""Bytes of the largest file of MNIST that is read, unpacked."""


@dataclasses.dataclass(frozen=True)
class AudioFile:
    """A recording or a noise clip.

    Attributes:
        name: of it; no other has the same.
        samples: (t) int16 at `RATE`.
        number: of the recording among those of a speaker and digit; of a noise clip
            its fold.
        digit: that is spoken; -1 for noise.
        speaker: who speaks; "" for noise.
    """

    name: str
    samples: np.ndarray
    number: int
    digit: int = -1
    speaker: str = ""


@dataclasses.dataclass(frozen=True)
class RawFiles:
    """The files that a folder has.

    Attributes:
        mnist: the one file, or four in the order of `IDX`.
        speech: the one file, or the recordings.
        noise: the clips.
    """

    mnist: tuple[Path, ...]
    speech: tuple[Path, ...]
    noise: tuple[Path, ...]

    @property
    def sha256(self) -> str:
        """Of all of them, wherever they lie."""
        whole = hashlib.sha256()
        for file in (*self.mnist, *self.speech, *self.noise):
            with file.open("rb") as stream:
                whole.update(hashlib.file_digest(stream, "sha256").digest())
        return whole.hexdigest()


def find(folder: Path, asked: str) -> RawFiles:
    """The parts in a folder.

    Args:
        folder: where to look, at any depth.
        asked: what the user wrote to name it, for the message.

    Raises:
        DataError: one of the three is not there.
    """
    files = sorted(folder.rglob("*"), key=lambda path: path.name)
    one = lambda name: tuple(path for path in files if path.name == name)[:1]
    fits = lambda form: tuple(path for path in files if form.fullmatch(path.name))
    first = lambda form: [path for path in files if path.match(form)][:1]
    idx = tuple(path for form in IDX.values() for path in first(form))
    parts = RawFiles(
        one(MNIST) or (idx if len(idx) == len(IDX) else ()),
        one(SPEECH) or fits(SPOKEN),
        fits(NOISE),
    )
    named = {
        "MNIST": parts.mnist,
        "the spoken digits": parts.speech,
        "the noise clips": parts.noise,
    }
    if missing := [name for name, found in named.items() if not found]:
        raise DataError(
            "D40",
            f"{asked}: {' and '.join(missing)} are not there. The folder looks "
            f"like\n{EXPECTED_LAYOUT}",
            FALLBACK_HINT,
        )
    return parts


def read_mnist(parts: RawFiles) -> dict[str, np.ndarray]:
    """The arrays of `IDX`: images (n 28 28) and digits (n), uint8.

    Raises:
        DataError: a file is damaged, or not what its name says.
    """
    if len(parts.mnist) == 1:
        arrays = read_npz(parts.mnist[0], tuple(IDX))
    else:
        arrays = dict(zip(IDX, map(_idx, parts.mnist), strict=True))
    for split in ("train", "test"):
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
        good = x.shape[1:] == (28, 28) and y.shape == x.shape[:1] and len(x) > 1
        if not good or {x.dtype.name, y.dtype.name} != {"uint8"} or y.max() > 9:
            raise _wrong(
                parts.mnist[0],
                f"{split} has images {x.dtype} {x.shape} and digits {y.dtype} "
                f"{y.shape}, not (n 28 28) and (n) uint8, 0 to 9",
            )
    return arrays


def read_speech(parts: RawFiles, processes: int | None) -> list[AudioFile]:
    """The recordings.

    Args:
        parts: where they are.
        processes: that decode files of sound, see `worker_pool.run`.

    Raises:
        DataError: a file is damaged, or not what its name says.
    """
    if parts.speech[0].name == SPEECH:
        return _fsdd(parts.speech[0])
    sounds = decode_all(parts.speech, processes, "reading spoken digits")
    found = zip(parts.speech, sounds, strict=True)
    return [_spoken(path, samples) for path, samples in found]


def read_noise(parts: RawFiles, processes: int | None) -> list[AudioFile]:
    """The noise clips; arguments and errors are those of `read_speech`."""
    sounds = decode_all(parts.noise, processes, "reading noise clips")
    clips = []
    for path, samples in zip(parts.noise, sounds, strict=True):
        if not samples.any():
            raise _wrong(path, "it is silent")
        fold = int(_matched(NOISE, path)["fold"])
        clips.append(AudioFile(path.stem, samples, fold))
    return clips


def decode_all(
    files: Sequence[Path], processes: int | None, what: str
) -> Iterable[np.ndarray]:
    """The sound of each file, (t) int16 at `RATE`."""
    results = worker_pool.map_in_processes(_heard, files, workers=processes)
    for path, result in zip(files, track(results, len(files), what), strict=True):
        if isinstance(result, worker_pool.Failure):
            raise _wrong(path, result.reason.rstrip("."))
        yield result


def _heard(path: Path) -> np.ndarray:
    """In a worker: the sound of a file."""
    waveform = decode.read(
        path, None, decode.AudioSampling(RATE, min_samples=1)
    ).waveform
    if waveform is None:
        raise DataError("D31", f"{path} has no sound.")
    return np.clip(np.rint(32768 * waveform), -32768, 32767).astype(np.int16)


def _spoken(path: Path, samples: np.ndarray) -> AudioFile:
    """A recording and what its name says."""
    told = _matched(SPOKEN, path)
    number, digit = int(told["number"]), int(told["digit"])
    return AudioFile(path.stem, samples, number, digit, told["speaker"])


def _fsdd(path: Path) -> list[AudioFile]:
    """All recordings from one file."""
    x = read_npz(path, FSDD)
    ends, count = x["offsets"], x["digit"].size
    whole = ("offsets", "digit", "index")
    checks: dict[str, Callable[[], bool]] = {
        "offsets, digit or index are not (n) whole numbers": lambda: all(
            x[name].ndim == 1 and x[name].dtype.kind in "iu" for name in whole
        ),
        "samples are not (t) int16": lambda: (
            x["samples"].ndim == 1 and x["samples"].dtype == np.int16
        ),
        f"sample_rate is not {RATE}": lambda: x["sample_rate"].tolist() == RATE,
        "offsets do not rise from 0 to the number of samples": lambda: (
            ends.shape == (count + 1,)
            and bool((np.diff(ends) > 0).all())
            and (ends[0], ends[-1]) == (0, len(x["samples"]))
        ),
        "speaker or index has another length than digit": lambda: (
            x["speaker"].shape == x["index"].shape == x["digit"].shape
        ),
        "digits are not 0 to 9": lambda: bool(np.isin(x["digit"], range(10)).all()),
    }
    for wrong, good in checks.items():
        if not good():
            raise _wrong(path, wrong)
    rows = zip(
        x["digit"].tolist(), x["speaker"].tolist(), x["index"].tolist(), strict=True
    )
    return [
        AudioFile(f"{d}_{who}_{i}", x["samples"][ends[n] : ends[n + 1]], i, d, str(who))
        for n, (d, who, i) in enumerate(rows)
    ]


def _idx(path: Path) -> np.ndarray:
    """An array of MNIST: two zeros, a type, the number of axes, their sizes, bytes."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as stream:
            raw = stream.read(LARGEST)
        kind, axes = struct.unpack(">HBB", raw[:4])[1:]
        shape = struct.unpack(f">{axes}I", raw[4 : 4 + 4 * axes])
        values = np.frombuffer(raw, np.uint8, offset=4 + 4 * axes)
    except (OSError, EOFError, ValueError, zlib.error, struct.error) as error:
        raise _wrong(path, f"it cannot be read: {error}") from error
    if kind != 8 or values.size != math.prod(shape):
        raise _wrong(path, f"{values.size} bytes are not {shape}, as its head says")
    return values.reshape(shape)


def _matched(form: re.Pattern[str], path: Path) -> re.Match[str]:
    """What the name of a part says; `find` took only names of that form."""
    found = form.fullmatch(path.name)
    assert found is not None
    return found


def _wrong(path: Path, what: str) -> DataError:
    """The error for a part that is not as it should be."""
    return DataError("D52", f"{path}: {what}.", "copy or download it again")
