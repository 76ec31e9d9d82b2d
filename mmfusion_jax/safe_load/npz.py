"""Arrays from an npz file, without running anything that lies in it."""

from collections.abc import Mapping, Sequence
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
        fix = "copy or download it again"
        if "allow_pickle" in str(error):
            fix = "save plain arrays in it, such as of float32, none of objects"
        raise DataError("D52", f"{path} cannot be read: {error}.", fix) from error


def read_from(
    dir: str, file: str, names: Sequence[str], layout: str, without: str
) -> dict[str, np.ndarray]:
    """The arrays `names` of a file in the folder `config.data.dir`.

    Args:
        dir: the folder, as the user wrote it; "" if nothing was said.
        file: name of the file in it.
        names: the arrays to read, all of which must be there.
        layout: what the folder should look like, indented lines.
        without: a command that runs without this data.

    Raises:
        DataError: the file is not there or cannot be read, see `read_npz`.
    """
    path = Path(dir).expanduser() / file
    if not dir or not path.is_file():
        raise DataError(
            "D40",
            f"config.data.dir={dir!r}: {file} is not there. The folder looks "
            f"like\n{layout}",
            without,
        )
    return read_npz(path, names)


def check_finite(where: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises DataError for the first array that holds NaN or infinity."""
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise DataError("D52", f"{where}: {name} holds values that are not finite.")


def _check_size(path: Path, stream) -> None:
    """Raises DataError for an archive that unpacks to more than it could hold."""
    with ZipFile(stream) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > max(LARGE, RATIO * path.stat().st_size):
        raise DataError("D52", f"{path} would unpack to {size / 1e9:.1f} GB.")
    stream.seek(0)
