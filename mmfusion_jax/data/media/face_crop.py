"""Crops faces by the landmarks of OpenFace."""

import csv
import dataclasses
import functools
import io
import itertools
from pathlib import Path

import numpy as np

from mmfusion_jax.data.media.resize import resize
from mmfusion_jax.errors import DataError, describe_exception
from mmfusion_jax.safe_load.regular_file import open_regular

CROPS = ("full", "released_code")
_POINTS = 68
_WIDTH, _HEIGHT = 1280, 720
_X, _Y = 297, 365  # first columns of the points in files without column names


@dataclasses.dataclass(frozen=True)
class FaceCrop:
    """Crops a frame to the bounding box of its landmarks, without a margin.

    Attributes:
        path: CSV file that OpenFace wrote for the clip, one row per frame.
        frames: Number of frames sampled from the clip.
        size: Side length of the result in pixels.
        crop: "full" crops the original frame; "released_code" first resizes the frame
            to size x size, as the released code does.
        frame_sampling: "uniform" or "consecutive", as in `decode.FrameSampling`.

    Reference:
        CFN-SR, released code.
    Deviation:
        The code loses detail by resizing first; this implementation crops first. The
        code also stores JPEG, which this implementation does not.
    """

    path: Path
    frames: int
    size: int
    crop: str = "full"
    frame_sampling: str = "uniform"

    def __call__(self, index: int, frame: np.ndarray) -> np.ndarray:
        if self.crop == "released_code":
            frame = resize(frame, self.size)
        height, width = frame.shape[:2]
        scale = np.array([width, height, width, height])
        left, top, right, bottom = (self.boxes[index] * scale).round().astype(int)
        part = frame[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
        if not part.size:
            raise DataError(
                "D51", f"{self.path}: the landmarks of frame {index} are outside of it."
            )
        return resize(part, self.size)

    @functools.cached_property
    def boxes(self) -> np.ndarray:
        """Left, top, right, bottom of each sampled frame, in 0..1, (frames 4)."""
        points = _read(self.path)
        indices = np.arange(self.frames)
        if self.frame_sampling == "uniform":
            rows = -(-indices * len(points) // self.frames)
        else:
            rows = indices + max(0, (len(points) - self.frames) // 2)
        rows = np.minimum(rows, len(points) - 1)
        x, y = points[rows, :_POINTS] / _WIDTH, points[rows, _POINTS:] / _HEIGHT
        return np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1)


def _read(path: Path) -> np.ndarray:
    """Returns the x of all points, then their y, in pixels, (rows 136)."""
    try:
        with (
            open_regular(path) as stream,
            io.TextIOWrapper(stream, encoding="utf-8", newline="") as file,
        ):
            reader = csv.reader(file)
            names = [name.strip() for name in next(reader)]
            columns = _columns(names)
            points = [[float(row[column]) for column in columns] for row in reader]
    except (OSError, StopIteration, IndexError, ValueError) as error:
        raise DataError(
            "D51",
            f"{path} is not a CSV file of landmarks: {describe_exception(error)}.",
        ) from error
    if not points or not np.isfinite(points).all():
        raise DataError(
            "D51", f"{path} contains no landmarks, or NaN or infinite ones."
        )
    return np.array(points)


def _columns(names: list[str]) -> list[int]:
    """Returns the columns of the points: x_0, y_0, ..., else their default indices."""
    wanted = [f"{axis}_{point}" for axis in "xy" for point in range(_POINTS)]
    if set(wanted) <= set(names):
        return [names.index(name) for name in wanted]
    defaults = itertools.chain(range(_X, _X + _POINTS), range(_Y, _Y + _POINTS))
    return list(defaults)
