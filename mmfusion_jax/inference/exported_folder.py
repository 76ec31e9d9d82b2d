"""Reads and writes the folder of an exported model.

`model.safetensors` has the arrays, and in its `__metadata__` the SHA-256 of every array
and of every other file that a model is built from, by name. Nothing in the folder is
code of Python, and nothing is unpickled.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from mmfusion_jax.config.base import with_defaults
from mmfusion_jax.config.resolve import resolve, unimodal_spec
from mmfusion_jax.errors import (
    CheckpointError,
    MissingDependencyError,
    join_names,
    shorten,
    shown,
    shown_name,
)
from mmfusion_jax.inference.trained_run import (
    TestScores,
    TrainedRun,
    build_for_prediction,
    check_packages,
)
from mmfusion_jax.results.calibration_file import CALIBRATION_FILE, read_calibration
from mmfusion_jax.results.config_file import CONFIG_FILE, read_config
from mmfusion_jax.results.export_file import EXPORT_FILE, WEIGHTS_FILE, ExportInfo
from mmfusion_jax.results.json_file import read_json
from mmfusion_jax.results.predictor_file import PREDICTOR_FILE, read_predictor
from mmfusion_jax.safe_load.regular_file import why_not_regular
from mmfusion_jax.types import PyTree

REQUIRED = (EXPORT_FILE, CONFIG_FILE, PREDICTOR_FILE)
BITS = (8, 16, 32, 64)
MAX_JSON_BYTES = 64 * 2**20
"""Largest JSON file that is read: a vocabulary has less than 2 MB."""

DTYPES = {
    **{f"float{n}": f"F{n}" for n in (16, 32, 64)},
    **{f"{kind}{n}": f"{kind[0].upper()}{n}" for kind in ("int", "uint") for n in BITS},
    "bfloat16": "BF16",
    "bool": "BOOL",
}
"""Dtype of an array -> its name in a safetensors file."""

FIX = "copy the folder again, or export the run again"


def flat_arrays(variables: PyTree) -> dict[str, Any]:
    """Returns name -> leaf of the variables of a model.

    Args:
        variables: Arrays or abstract arrays, such as {"params": {"head": ...}}.

    Returns:
        Such as {"params/head/kernel": ...}, in the order of `jax.tree.leaves`.
    """
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
    return {name(path): leaf for path, leaf in leaves}


def digest(content: bytes) -> str:
    """Returns the SHA-256 of some bytes, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def weights_bytes(variables: PyTree, files: Mapping[str, bytes]) -> bytes:
    """Returns the content of `model.safetensors`.

    Args:
        variables: The variables of the model.
        files: Content of the other files of the folder, by name.
    """
    arrays = {
        # Of NumPy's functions, this one keeps an array without axes as it is.
        name: np.asarray(leaf, order="C")
        for name, leaf in flat_arrays(jax.device_get(variables)).items()
    }
    digests = {name: digest(array.tobytes()) for name, array in arrays.items()}
    digests |= {name: digest(content) for name, content in files.items()}
    return safetensors.numpy.save(arrays, metadata=digests)


def write_folder(out: Path, files: Mapping[str, bytes]) -> None:
    """Writes a new folder: all files, or, after an error or a crash, none.

    Args:
        out: The folder; it does not exist, or is empty.
        files: Content by name.

    Raises:
        MissingDependencyError: The folder is not empty or cannot be written.
    """
    check_output(out)
    # Followed, because a folder cannot be renamed to a symbolic link.
    out = Path(os.path.realpath(out))
    # In the same folder, so that the rename stays within one file system.
    fresh = out.parent / f".{out.name}.{os.getpid()}"
    try:
        fresh.mkdir(parents=True)
        for name, content in files.items():
            with (fresh / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync(fresh)
        fresh.rename(out)  # fails unless `out` does not exist or is an empty folder
        _sync(out.parent)
    except OSError as error:
        reason = shorten(error.strerror or error)
        raise _unusable(out, f"cannot be written: {reason}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def check_output(out: Path) -> None:
    """Raises MissingDependencyError unless a folder is new or empty."""
    try:
        if out.is_dir():
            if any(out.iterdir()):
                raise _unusable(out, "is not empty")
        elif out.exists() or out.is_symlink():
            raise _unusable(out, "is not a folder")
        # Before the programs are compiled, which takes minutes for a large model.
        parent = next(one for one in out.absolute().parents if one.exists())
        if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
            raise _unusable(out, "is not in a folder that can be written to")
    except OSError as error:
        reason = shorten(error.strerror or error)
        raise _unusable(out, f"cannot be used: {reason}") from error


def _unusable(out: Path, what: str) -> MissingDependencyError:
    return MissingDependencyError(
        "E10",
        f"--out={shorten(out, 4096)} {shorten(what)}.",
        "use a new folder on a disk with free space; nothing was written",
    )


def _sync(folder: Path) -> None:
    """Writes the entries of a folder to the disk."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def read_exported(folder: Path, packages: Collection[str] = ()) -> TrainedRun:
    """Reads an exported model; runs none of its code.

    Args:
        folder: The exported folder.
        packages: Other packages whose parts the config can name.

    Raises:
        CheckpointError: A file is missing, or differs from what was exported.
        ConfigError: The config names a part of another package.
    """
    path = folder / WEIGHTS_FILE
    with _opened(path) as file:
        digests = file.metadata() or {}
        _check_files(folder, digests)
        about = read_json(folder / EXPORT_FILE, ExportInfo, FIX)
        info, config = read_predictor(folder), read_config(folder)
        assert info is not None and config is not None  # _check_files has looked
        check_packages(config.config, packages, folder)
        spec = resolve(with_defaults(config.config))
        if info.identity.stage:
            spec = unimodal_spec(spec, info.identity.stage)
        model, abstract = build_for_prediction(spec, info)
        wanted = {"params": abstract.params, "batch_stats": abstract.stats}
        variables = _read_variables(file, path, wanted, digests)
    has_calibration = CALIBRATION_FILE in digests
    scores = about.scores
    return TrainedRun(
        folder,
        spec,
        info,
        model,
        variables,
        about.step,
        read_calibration(folder) if has_calibration else None,
        tuple(about.remarks),
        scores and TestScores(scores.metric, scores.score, scores.without),
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Opens a safetensors file; its errors become those of the user."""
    if reason := why_not_regular(path):
        raise CheckpointError("K10", f"{path} {reason}.", FIX)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            "K10", f"{path} is corrupted: {shorten(error)}.", FIX
        ) from error


def _check_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Raises CheckpointError unless the files of a folder are those of its arrays."""
    needed = [*REQUIRED, *([CALIBRATION_FILE] if CALIBRATION_FILE in digests else [])]
    for name in needed:
        path = folder / name
        reason = why_not_regular(path)
        if not reason and name not in digests:
            reason = f"has no SHA-256 in {WEIGHTS_FILE}"
        if not reason and path.stat().st_size > MAX_JSON_BYTES:
            reason = f"is larger than {MAX_JSON_BYTES // 2**20} MiB"
        if reason:
            raise CheckpointError("K10", f"{path} {shorten(reason)}.", FIX)
    # Programs are not read here, and may be deleted to save space.
    for path in sorted(folder.iterdir()):
        if path.name in digests and not why_not_regular(path):
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != digests[path.name]:
                raise CheckpointError(
                    "K10",
                    f"{path} differs from its SHA-256 in {WEIGHTS_FILE}.",
                    FIX,
                )


def _read_variables(
    file: Any, path: Path, wanted: PyTree, digests: Mapping[str, str]
) -> PyTree:
    """Returns the arrays of an open safetensors file as the variables of a model."""
    specs = flat_arrays(wanted)
    if odd := sorted({*file.keys()} ^ {*specs}):
        raise CheckpointError(
            "K10",
            f"{path} does not match the model of {CONFIG_FILE}: "
            f"{join_names(odd[:8])} in one of them only.",
            FIX,
        )
    arrays = []
    for name, spec in specs.items():
        # Before anything is read: the size of an array is that of the model.
        part = file.get_slice(name)
        shape, dtype = tuple(part.get_shape()), part.get_dtype()
        if shape != spec.shape or dtype != DTYPES.get(spec.dtype.name):
            raise CheckpointError(
                "K10",
                f"{path}: array {shown(name)} is {shown_name(dtype)} {shown(shape)}, "
                f"but the model of {CONFIG_FILE} has {shown_name(spec.dtype.name)} "
                f"{shown(spec.shape)}.",
                FIX,
            )
        array = file.get_tensor(name)
        if digest(array.tobytes()) != digests.get(name):
            raise CheckpointError(
                "K10", f"{path}: array {shown(name)} differs from its SHA-256.", FIX
            )
        arrays.append(array)
    return jax.tree.unflatten(jax.tree.structure(wanted), arrays)


def without_paths(config: Any) -> Any:
    """Returns a config in which absolute paths are replaced by their last part.

    Folders of the author are not needed, and are not for others.

    Args:
        config: JSON values.
    """
    if isinstance(config, Mapping):
        return {name: without_paths(value) for name, value in config.items()}
    if isinstance(config, list | tuple):
        return [without_paths(value) for value in config]
    if isinstance(config, str) and config.startswith(("/", "~")):
        return Path(config).name
    return config
