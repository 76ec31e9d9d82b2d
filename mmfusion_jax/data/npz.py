"""Arrays from an npz file, without running anything that lies in it."""

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np

from mmfusion_jax.errors import DataError

RATIO = 200
"""A file that unpacks to more times its size than this is a trap, if it is large."""

LARGE = 64 << 20


def read_npz(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a file.

    Args:
        path: of the file, which must exist.
        names: the arrays to read, all of which must be there; None reads all.

    Raises:
        DataError: the file is damaged, lacks an array, needs pickle, or would unpack
            to far more than it could hold.
    """
    try:
        with path.open("rb") as stream:
            _check_size(path, stream)
            with np.load(stream, allow_pickle=False) as file:
                return {name: file[name] for name in names or file.files}
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        EOFError,
        MemoryError,
        AttributeError,  # a plain npy file: it has no arrays by name
        BadZipFile,
    ) as error:
        raise DataError(
            "D52", f"{path} cannot be read: {error}.", "copy or download it again"
        ) from error


def _check_size(path: Path, stream) -> None:
    """Raises DataError for an archive that unpacks to more than it could hold."""
    with ZipFile(stream) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > max(LARGE, RATIO * path.stat().st_size):
        raise DataError("D52", f"{path} would unpack to {size / 1e9:.1f} GB.")
    stream.seek(0)
