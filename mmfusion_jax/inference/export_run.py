"""Exports a trained run: arrays, preprocessing, model card and programs."""

import dataclasses
import importlib.metadata
from collections.abc import Collection, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from mmfusion_jax.errors import ConfigError, shorten, shown, shown_name
from mmfusion_jax.inference.exported_folder import (
    check_output,
    weights_bytes,
    without_paths,
    write_folder,
)
from mmfusion_jax.inference.model_card import CardFacts, model_card
from mmfusion_jax.inference.onnx_program import export_onnx
from mmfusion_jax.inference.program import (
    FALLBACK_SIZES,
    PLATFORMS,
    ProgramExporter,
    check_flatbuffers,
    check_platforms,
    why_not_mapped,
)
from mmfusion_jax.inference.trained_run import TrainedRun, read_trained_run
from mmfusion_jax.paths import local_path
from mmfusion_jax.results.calibration_file import CALIBRATION_FILE
from mmfusion_jax.results.config_file import CONFIG_FILE, WorkdirConfig
from mmfusion_jax.results.experiment_result import ExperimentResult, read_result
from mmfusion_jax.results.export_file import (
    EXPORT_FILE,
    WEIGHTS_FILE,
    ExportedScores,
    ExportInfo,
    ProgramFile,
    is_exported,
)
from mmfusion_jax.results.json_file import FORMAT_VERSION, VERSION_FIELD, dumps, to_json
from mmfusion_jax.results.model_result import read_run
from mmfusion_jax.results.predictions_file import read_predictions
from mmfusion_jax.results.predictor_file import PREDICTOR_FILE

if TYPE_CHECKING:
    from mmfusion_jax.inference.predictor import Predictor

CARD_FILE = "README.md"
MAX_BATCH_SIZE = 2**16


@dataclasses.dataclass(frozen=True)
class Exported:
    """An exported model.

    Attributes:
        folder: Its folder.
        files: Name of every file -> its size in bytes.
        programs: Its programs.
        remarks: Sentences about the export.
    """

    folder: Path
    files: dict[str, int]
    programs: list[ProgramFile]
    remarks: list[str]


def export(
    run: "str | PathLike[str] | Predictor",
    out: str | PathLike[str],
    *,
    batch_sizes: Sequence[int] = (),
    platforms: Sequence[str] = PLATFORMS,
    packages: Collection[str] = (),
    onnx: bool = False,
) -> Exported:
    """Exports a trained run to a new folder; all files are written, or none.

    `mmf.load` reads the folder. Its program `model.stablehlo` maps inputs and masks to
    predictions on any number of examples, and JAX runs it without this package.

    Example:
        >>> import mmfusion_jax as mmf
        >>> try:
        ...     mmf.export("runs/nothing", "exported")
        ... except mmf.UserError as error:
        ...     print(error.code)
        K09

    Args:
        run: The workdir of a training, the folder of one of its runs, or a predictor.
        out: The folder to write; it does not exist, or is empty.
        batch_sizes: Write a program for each of these numbers of examples too, such as
            `model_b8.stablehlo`. It computes a large batch in the parts that the model
            divides it into, and needs less memory for some models.
        platforms: Platforms of JAX that the programs are for.
        packages: Other packages whose parts the config of the run may name.
        onnx: Write a program in ONNX for each of `batch_sizes`, or for one example,
            too; an experiment, which requires the extra `onnx`.

    Raises:
        CheckpointError: The folder has no trained run, or a file of it is corrupted.
        ConfigError: An argument is out of range, or the model cannot be converted to
            ONNX.
        MissingDependencyError: A library is not installed, or the folder cannot be
            written.
    """
    out = local_path("out", out)
    check_platforms(platforms)
    _check_sizes(batch_sizes)
    check_output(out)
    found = _read_run(run, packages)
    check_flatbuffers()
    exporter = ProgramExporter(
        found.model, found.variables, found.info, found.spec.model.modalities
    )
    programs, content, remarks = _export_programs(exporter, batch_sizes, platforms)
    for size in dict.fromkeys(batch_sizes or (1,)) if onnx else ():
        name = f"model_b{size:d}.onnx"
        content[name], difference = export_onnx(exporter, size)
        programs.append(ProgramFile(name, size, [], difference))
    files = _build_files(found, programs, content, remarks)
    write_folder(out, files)
    sizes = {name: len(one) for name, one in files.items()}
    return Exported(out, sizes, programs, remarks)


def _check_sizes(batch_sizes: Sequence[int]) -> None:
    """Raises ConfigError for a batch size that is not a number from 1 on."""
    for size in batch_sizes:
        if not isinstance(size, int) or not 1 <= size <= MAX_BATCH_SIZE:
            raise ConfigError(
                "C10",
                f"batch_sizes has {shown(size)}, which is not a number of examples.",
                f"1 to {MAX_BATCH_SIZE}",
            )


def _read_run(
    run: "str | PathLike[str] | Predictor", packages: Collection[str]
) -> TrainedRun:
    """Returns the run to export."""
    if isinstance(run, str | PathLike):
        path = local_path("run", run)
        found = None if is_exported(path) else read_trained_run(path, packages)
    else:
        path, found = run.run.folder, run.run
    if found is None or is_exported(path):
        raise ConfigError(
            "C01",
            f"{path} is an exported folder, which does not have what a model card is "
            "made of.",
            "export the run that it was exported from",
        )
    return found


def _export_programs(
    exporter: ProgramExporter, batch_sizes: Sequence[int], platforms: Sequence[str]
) -> tuple[list[ProgramFile], dict[str, bytes], list[str]]:
    """Returns the programs of a model, their files by name, and remarks."""
    sizes: list[int | None] = [None, *dict.fromkeys(batch_sizes)]
    made, content, remarks = [], {}, []
    while sizes:
        size = sizes.pop(0)
        try:
            program = exporter.export(size, platforms)
        except Exception as error:
            # Models of this package can be mapped over examples: the testing kit
            # checks it. One of another package may divide its batch by a number.
            if size is not None:
                raise
            remarks.append(why_not_mapped(error))
            sizes = [*dict.fromkeys(batch_sizes or FALLBACK_SIZES)]
            continue
        name = "model.stablehlo" if size is None else f"model_b{size:d}.stablehlo"
        difference = None
        if jax.default_backend() in _backends(platforms):
            batch = exporter.random_batch(size or len(exporter.modalities) + 1)
            difference = exporter.difference(program, *batch)
        made.append(ProgramFile(name, size, [*platforms], difference))
        content[name] = program
    return made, content, remarks


def _backends(platforms: Sequence[str]) -> set[str]:
    """Returns the names of platforms as `jax.default_backend` has them."""
    return {"gpu" if name in ("cuda", "rocm") else name for name in platforms}


def _build_files(
    run: TrainedRun,
    programs: Sequence[ProgramFile],
    content: dict[str, bytes],
    remarks: Sequence[str],
) -> dict[str, bytes]:
    """Returns the content of all files, by name."""
    versions = {
        name: importlib.metadata.version(name)
        for name in ("mmfusion_jax", "jax", "flax", "numpy")
    }
    about = ExportInfo(
        model=run.spec.model.model.name,
        modalities=[*run.spec.model.modalities],
        step=run.step,
        scores=_scores(run),
        programs=[*programs],
        remarks=[shorten(line) for line in run.remarks],
        versions=versions,
    )
    config = WorkdirConfig(run.spec.seeds, without_paths(run.spec.source))
    documents: dict[str, Any] = {
        EXPORT_FILE: about,
        CONFIG_FILE: config,
        PREDICTOR_FILE: run.info,
    }
    if run.calibration is not None:
        documents[CALIBRATION_FILE] = run.calibration
    files = {name: _json(value) for name, value in documents.items()} | content
    card = model_card(
        CardFacts(
            run=run,
            result=read_run(run.folder),
            experiment=_experiment(run),
            predictions=read_predictions(run.folder),
            programs=programs,
            files=[WEIGHTS_FILE, *files],
            remarks=remarks,
            versions=versions,
        )
    )
    weights = weights_bytes(run.variables, files)
    return {
        CARD_FILE: card.encode("utf-8", "replace"),
        **files,
        WEIGHTS_FILE: weights,
    }


def _scores(run: TrainedRun) -> ExportedScores | None:
    """Returns the scores of a run as `export.json` has them."""
    found = run.scores
    if found is None:
        return None
    return ExportedScores(found.metric, found.score, {**found.without})


def _json(value: object) -> bytes:
    """Returns a dataclass as `write_json` writes it."""
    fields = {VERSION_FIELD: FORMAT_VERSION, **to_json(value)}
    return f"{dumps(fields)}\n".encode()


def _experiment(run: TrainedRun) -> ExperimentResult | None:
    """Returns the result of all runs of a workdir, if this run is one of them."""
    identity = run.info.identity
    if identity.stage:
        return None
    for folder in (run.folder, run.folder.absolute().parent.parent):
        found = read_result(folder)
        if found is not None and any(
            one.identity == identity and _same(folder / one.folder, run.folder)
            for one in found.runs
        ):
            return found
    return None


def _same(a: Path, b: Path) -> bool:
    """Returns whether two paths are the same folder."""
    return a.resolve() == b.resolve()


def describe(found: Exported) -> list[str]:
    """Returns lines about an export, for the console."""
    lines = [f"exported: {found.folder}"]
    for name, size in found.files.items():
        lines.append(f"  {shown_name(name)}: {size:,d} bytes")
    for one in found.programs:
        if one.difference is not None:
            lines.append(
                f"{shown_name(one.file)}: largest difference from the library "
                f"{one.difference:.1e}"
            )
    return [*lines, *map(shorten, found.remarks)]
