"""Crops the frames of a clip to the face that OpenCV detects."""

import importlib
from typing import Any

import numpy as np

from mmfusion_jax.errors import missing_dependency

_CASCADE = "haarcascade_frontalface_default.xml"
_LONGEST_SIDE = 480  # pixels of the image that is searched
_SMALLEST_FACE = 24  # pixels, the size of the cascade's window
_FRAMES = 5
_MARGIN = 0.2

Box = tuple[int, int, int]
"""Left, top and side of a square, in pixels."""


def face_box(frames: np.ndarray) -> Box | None:
    """Returns a square around the face of a clip; None if no face is detected.

    The largest face of each of five frames is detected; the box is the median, with a
    margin of 20 % on every side, within the frame. One box for all frames does not
    move from frame to frame.

    Args:
        frames: (t h w 3) uint8 RGB.

    Raises:
        MissingDependencyError: OpenCV is not installed.

    Reference:
        OF-CMAER-CAT, Sec. 4.1: "detecting and cropping all facial regions with a face
        detector"; Viola & Jones 2001.
    Deviation:
        The paper does not name its detector; this is the Haar cascade of frontal faces
        that OpenCV 4 contains.
    """
    cv2 = import_cv2()
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + _CASCADE)
    chosen = np.unique(np.linspace(0, len(frames) - 1, _FRAMES).round().astype(int))
    faces = [_largest_face(cv2, cascade, frames[i]) for i in chosen]
    found = [face for face in faces if face is not None]
    if not found:
        return None
    x, y, side = np.median(found, axis=0)
    height, width = frames.shape[1:3]
    size = int(min(round(side * (1 + 2 * _MARGIN)), height, width))
    left = int(np.clip(round(x - size / 2), 0, width - size))
    top = int(np.clip(round(y - size / 2), 0, height - size))
    return left, top, size


def import_cv2() -> Any:
    """Imports OpenCV 4, or raises the error that names the extra."""
    try:
        cv2 = importlib.import_module("cv2")
        cv2.CascadeClassifier  # noqa: B018  OpenCV 5 does not have it
    except (ImportError, AttributeError) as error:
        raise missing_dependency(
            "opencv-python-headless<5", "faces", "detecting faces"
        ) from error
    return cv2


def _largest_face(cv2: Any, cascade: Any, frame: np.ndarray) -> Any:
    """Returns center x, center y and side of the largest face; None without one."""
    gray = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    scale = min(1.0, _LONGEST_SIDE / max(gray.shape))
    if scale < 1:
        gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    smallest = (_SMALLEST_FACE, _SMALLEST_FACE)
    faces = cascade.detectMultiScale(gray, 1.1, 5, minSize=smallest)
    if not len(faces):
        return None
    x, y, w, h = max(faces, key=lambda face: face[2] * face[3])
    return np.array([x + w / 2, y + h / 2, max(w, h)]) / scale
