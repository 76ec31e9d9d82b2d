"""Reads arrays from npz files without running code in them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np

from mmfusion_jax.errors import DataError

RATIO = 200
"""A large file that unpacks to more than this many times its size is rejected."""

LARGE = 64 << 20
"""Bytes up to which `RATIO` is not checked."""


def read_npz(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Returns the arrays of a file.

    Args:
        path: File, which must exist.
        names: Arrays to read, all of which must be in the file; None reads all.

    Raises:
        DataError: The file is corrupted, lacks an array, requires pickle, or would
            unpack to much more than its size.
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
        AttributeError,  # a plain npy file, which has no named arrays
        BadZipFile,
    ) as error:
        fix = "copy or download it again"
        if "allow_pickle" in str(error):
            fix = "save it with plain arrays, such as float32, and no object arrays"
        raise DataError("D52", f"{path} cannot be read: {error}.", fix) from error


def read_from(
    data_dir: str, file: str, names: Sequence[str], layout: str, fallback: str
) -> dict[str, np.ndarray]:
    """Returns arrays of a file in the folder `config.data.data_dir`.

    Args:
        data_dir: Folder as in the config; "" if it is not set.
        file: Name of the file in it.
        names: Arrays to read, all of which must be in the file.
        layout: Expected layout of the folder, as indented lines.
        fallback: Command that runs without this data.

    Raises:
        DataError: The file does not exist or cannot be read, see `read_npz`.
    """
    path = Path(data_dir).expanduser() / file
    if not data_dir or not path.is_file():
        raise DataError(
            "D40",
            f"config.data.data_dir={data_dir!r}: {file} does not exist. Expected "
            f"layout:\n{layout}",
            fallback,
        )
    return read_npz(path, names)


def check_finite(where: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises DataError for the first array that contains NaN or infinite values."""
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise DataError("D52", f"{where}: {name} contains NaN or infinite values.")


def _check_size(path: Path, stream) -> None:
    """Raises DataError for an archive that unpacks to much more than its size."""
    with ZipFile(stream) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > max(LARGE, RATIO * path.stat().st_size):
        raise DataError("D52", f"{path} would unpack to {size / 1e9:.1f} GB.")
    stream.seek(0)
