"""Resizes video frames to a square."""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from mmfusion_jax.data.option_checks import check_choice
from mmfusion_jax.errors import ConfigError, missing_dependency, shown

FrameTransform: TypeAlias = Callable[[int, np.ndarray], np.ndarray]
"""(index of the sampled frame, RGB (h w 3) uint8) -> RGB (s s 3) uint8."""

RESIZE_MODES = ("center_crop", "letterbox", "stretch")
FULL_FRAME = (0.0, 0.0, 1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class SquareResize:
    """Resizes a frame to a square.

    Attributes:
        size: Side length in pixels.
        resize_mode: "center_crop" keeps the central square, "letterbox" adds black
            bars, "stretch" changes the aspect ratio.
        crop_box: Left, top, right, bottom of the part of the frame to use, as
            fractions of its size.
    """

    size: int
    resize_mode: str = "center_crop"
    crop_box: tuple[float, ...] = FULL_FRAME

    def __post_init__(self):
        check_choice("resize_mode", self.resize_mode, RESIZE_MODES)
        pairs = zip(self.crop_box[:2], self.crop_box[2:], strict=False)
        if len(self.crop_box) != 4 or not all(0 <= a < b <= 1 for a, b in pairs):
            raise ConfigError(
                "C10",
                f"config.data.crop_box={shown(self.crop_box)} is not left, top, "
                "right, bottom within 0..1.",
                "such as 0.25,0.5,0.75,1.0",
            )

    def __call__(self, index: int, frame: np.ndarray) -> np.ndarray:
        del index
        frame = self._crop(frame)
        height, width = frame.shape[:2]
        if self.resize_mode == "letterbox":
            side = max(height, width)
            box = np.zeros((side, side, 3), np.uint8)
            top, left = (side - height) // 2, (side - width) // 2
            box[top : top + height, left : left + width] = frame
            return resize(box, self.size)
        if self.resize_mode == "center_crop":
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            frame = frame[top : top + side, left : left + side]
        return resize(frame, self.size)

    def reduction(self, height: int, width: int) -> int:
        """Returns by which integer a frame can be reduced before it is resized.

        The used part still has four times as many pixels as the result per side.

        Args:
            height: Height of a frame in pixels.
            width: Width in pixels.
        """
        left, top, right, bottom = self.crop_box
        sides = (right - left) * width, (bottom - top) * height
        side = max(sides) if self.resize_mode == "letterbox" else min(sides)
        return max(1, int(side // (4 * self.size)))

    def _crop(self, frame: np.ndarray) -> np.ndarray:
        """Returns the `crop_box` of a frame, at least one pixel."""
        height, width = frame.shape[:2]
        left, right = (round(x * width) for x in self.crop_box[::2])
        top, bottom = (round(y * height) for y in self.crop_box[1::2])
        left, top = min(left, width - 1), min(top, height - 1)
        return frame[top : max(bottom, top + 1), left : max(right, left + 1)]


def resize(frame: np.ndarray, size: int) -> np.ndarray:
    """Resizes an image, (h w 3) uint8 to (size size 3), bilinear with antialiasing."""
    return resize_to(frame, (size, size))


def resize_to(frame: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resizes an image, (h w 3) uint8 to height and width, as `resize` does."""
    try:
        from PIL import Image
    except ImportError as error:
        raise missing_dependency("Pillow", "media", "resizing frames") from error
    height, width = shape
    image = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
