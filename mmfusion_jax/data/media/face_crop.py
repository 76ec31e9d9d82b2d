"""Faces cut out of frames by the landmarks that OpenFace found."""

import csv
import dataclasses
import functools
import itertools
from pathlib import Path

import numpy as np

from mmfusion_jax.data.media.resize import resize
from mmfusion_jax.errors import DataError

CROPS = ("full", "official")
_POINTS = 68
_WIDTH, _HEIGHT = 1280, 720
_X, _Y = 297, 365  # where the points begin if the columns have no names


@dataclasses.dataclass(frozen=True)
class FaceCrop:
    """Cuts out the box around the landmarks of a frame, without a margin.

    Attributes:
        path: the csv file that OpenFace wrote for the clip, a row for each frame.
        frames: how many frames are taken from the clip.
        size: side of the result in pixels.
        frame_sampling: of the frames, "even" or "consecutive", as in `media.Pictures`.
        crop: "full" cuts from the frame as it is; "official" first squeezes the frame
            to size x size.

    Source:
        CFN-SR, released code.
    Reading:
        The code loses detail by squeezing first; we cut first. It also stores JPEG,
        which we do not.
    """

    path: Path
    frames: int
    size: int
    crop: str = "full"
    frame_sampling: str = "even"

    def __call__(self, number: int, frame: np.ndarray) -> np.ndarray:
        if self.crop == "official":
            frame = resize(frame, self.size)
        height, width = frame.shape[:2]
        scale = np.array([width, height, width, height])
        left, top, right, bottom = (self.boxes[number] * scale).round().astype(int)
        part = frame[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
        if not part.size:
            raise DataError(
                "D51", f"{self.path}: the landmarks of frame {number} enclose nothing."
            )
        return resize(part, self.size)

    @functools.cached_property
    def boxes(self) -> np.ndarray:
        """Left, top, right, bottom for each frame taken, as shares, (frames 4)."""
        points = _read(self.path)
        numbers = np.arange(self.frames)
        if self.frame_sampling == "even":
            rows = -(-numbers * len(points) // self.frames)
        else:
            rows = numbers + max(0, (len(points) - self.frames) // 2)
        rows = np.minimum(rows, len(points) - 1)
        x, y = points[rows, :_POINTS] / _WIDTH, points[rows, _POINTS:] / _HEIGHT
        return np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1)


def _read(path: Path) -> np.ndarray:
    """The x of all points and then their y, in pixels, (rows 136)."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            names = [name.strip() for name in next(reader)]
            columns = _columns(names)
            points = [[float(row[column]) for column in columns] for row in reader]
    except (OSError, StopIteration, IndexError, ValueError) as error:
        raise DataError(
            "D51", f"{path} is no table of landmarks: {type(error).__name__} {error}."
        ) from error
    if not points or not np.isfinite(points).all():
        raise DataError("D51", f"{path} holds no landmarks, or some not finite.")
    return np.array(points)


def _columns(names: list[str]) -> list[int]:
    """Where the points are: by the names x_0, y_0, ..., else by their usual place."""
    wanted = [f"{axis}_{point}" for axis in "xy" for point in range(_POINTS)]
    if set(wanted) <= set(names):
        return [names.index(name) for name in wanted]
    usual = itertools.chain(range(_X, _X + _POINTS), range(_Y, _Y + _POINTS))
    return list(usual)
