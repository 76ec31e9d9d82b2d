"""The model card of an exported model: `README.md`, as Hugging Face reads it."""

import dataclasses
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
from scipy import stats

from mmfusion_jax.config import build
from mmfusion_jax.errors import join_names, shorten, shown_name
from mmfusion_jax.inference.trained_run import TrainedRun
from mmfusion_jax.metrics.statistics import paired_bootstrap
from mmfusion_jax.report import formatting
from mmfusion_jax.report.scores import SELECTED_CHECKPOINT
from mmfusion_jax.report.scores import warnings as score_warnings
from mmfusion_jax.results.calibration_file import Calibration, calibration_notes
from mmfusion_jax.results.experiment_result import ExperimentResult, MetricInfo
from mmfusion_jax.results.export_file import ProgramFile
from mmfusion_jax.results.model_result import ModelResult
from mmfusion_jax.results.predictions_file import Predictions
from mmfusion_jax.runner.predictor import outline_of

RESPONSIBLE_USE = (
    "This is research software. Predictions are about portrayed or perceived affect in "
    "datasets (often actors), not about what a person feels. Do not use it to infer "
    "emotions of people at work or in education: in the EU that is prohibited (AI Act "
    "Art. 5(1)(f)) except for medical or safety reasons; other uses on faces, voices "
    "or physiological signals are high-risk, and people exposed must be informed (Art. "
    "50). Get consent, keep recordings local, report per-group errors. Datasets keep "
    "their own licenses; most are non-commercial."
)
UNKNOWN = "unknown"
NON_COMMERCIAL = {
    "CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0",
    "CC BY-NC 4.0": "cc-by-nc-4.0",
    "CC BY-NC-ND 4.0": "cc-by-nc-nd-4.0",
}
"""License of data -> its identifier on Hugging Face. Any other one is "other": an
identifier that allows commercial use is not for weights to claim."""

GROUPS = ("actors", "speakers", "subjects", "videos")
"""Facts of a dataset that are the people, or recordings, of each split."""

RESAMPLES = 1000
LEVEL = 0.95

SNIPPET = '''\
import json

import numpy as np
from jax import export
from safetensors.numpy import load_file

variables = load_file("model.safetensors")
with open("{program}", "rb") as file:
    program = export.deserialize(bytearray(file.read()))
with open("predictor.json") as file:
    info = json.load(file)


def scale(name, x):
    """Scales features as in the training; x is (b t ...)."""
    found = info["preprocessing"]["scaling"].get(name)
    if found is None:
        return x
    a, b = (np.array(found[key], np.float32) for key in "ab")
    if found["kind"] == "min_max":
        return np.where(b > a, (x - a) / np.where(b > a, b - a, 1), 0)
    return ((x / 255 if found["kind"] == "standardize_pixels" else x) - a) / b


def predict(inputs, masks):
    """Maps padded features (b t ...) and masks (b t) to outputs, by modality."""
    dtypes = {{name: info["inputs"][name]["dtype"] for name in inputs}}
    scaled = {{
        name: scale(name, x).astype(dtypes[name]) for name, x in inputs.items()
    }}
    return program.call(variables, scaled, masks)


b = {size}
modalities = {modalities}
shapes = {{name: (b, *info["inputs"][name]["shape"]) for name in modalities}}
inputs = {{name: np.zeros(shape) for name, shape in shapes.items()}}
masks = {{name: np.ones(shape[:2], bool) for name, shape in shapes.items()}}
print(predict(inputs, masks)["prediction"])'''

FILES = {
    "model.safetensors": "variables, and the SHA-256 of each of them and of the files "
    "below in its metadata",
    "config.json": "configuration of the model and its training",
    "predictor.json": "labels, shapes and preprocessing",
    "calibration.json": "temperature and conformal scores of the validation split",
    "export.json": "step, scores and programs",
}
TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("mmfusion_jax.inference"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,  # Markdown, whose values are escaped by `cell`
    keep_trailing_newline=True,
)


@dataclasses.dataclass(frozen=True)
class CardFacts:
    """What a card is made of.

    Attributes:
        run: The model.
        result: Its result; None if its training has not ended.
        experiment: All runs of its workdir; None if they have not ended.
        predictions: Its predictions on the test split; None without them.
        programs: The exported programs.
        files: Names of all files of the folder.
        remarks: Sentences about the export.
        versions: Package -> version.
    """

    run: TrainedRun
    result: ModelResult | None
    experiment: ExperimentResult | None
    predictions: Predictions | None
    programs: Sequence[ProgramFile]
    files: Sequence[str]
    remarks: Sequence[str]
    versions: Mapping[str, str]

    @property
    def facts(self) -> Mapping[str, Any]:
        """Metadata of the dataset; {} if they are not known."""
        return self.experiment.data.facts if self.experiment else {}


def cell(value: Any, length: int = 200) -> str:
    """Returns a text for Markdown: short, of one line, without markup."""
    return re.sub(r"([\\|<>`\[\]*~])", r"\\\1", shorten(value, length))


def quoted(text: Any) -> str:
    """Returns a text for YAML: short, in quotation marks, escaped as in JSON."""
    return json.dumps(shorten(text), ensure_ascii=False)


def model_card(about: CardFacts) -> str:
    """Returns the text of `README.md`."""
    metrics = known_metrics(about)
    calibration, test = calibration_lines(about.run.calibration)
    heads, missing = missing_table(about, metrics)
    return TEMPLATES.get_template("model_card.md").render(
        front_matter="\n".join(front_matter(about, metrics)),
        title=f"{cell(model_name(about))} on {cell(about.run.info.title)}",
        responsible_use=RESPONSIBLE_USE,
        model_rows=[*model_rows(about)],
        data_rows=[*data_rows(about)],
        protocol=protocol_text(about),
        several=several_runs(about),
        scores=[*score_rows(about, metrics)],
        interval_note=interval_note(about),
        recalls=[*recall_rows(about)],
        missing_heads=heads,
        missing=missing,
        calibration=calibration,
        coverage=test,
        coverage_size=(
            "mean width"
            if about.run.info.task.kind == "regression"
            else "mean size of the set"
        ),
        limits=[*limits(about)],
        snippet=snippet(about),
        inputs=[*input_rows(about)],
        files=[*file_rows(about)],
        command=command(about),
        environment=environment(about),
    )


def model_name(about: CardFacts) -> str:
    """Returns the name of the model in its config."""
    return about.run.spec.model.model.name


def known_metrics(about: CardFacts) -> dict[str, MetricInfo]:
    """Returns what is known of each metric, by name."""
    if about.experiment:
        return about.experiment.metrics
    task = build.build_task(about.run.spec, outline_of(about.run.info))
    return {name: info.shown for name, info in task.metrics().infos.items()}


def front_matter(about: CardFacts, metrics: Mapping[str, MetricInfo]) -> Iterator[str]:
    """Yields the lines of the metadata, YAML; texts are quoted as in JSON."""
    info = about.run.info
    yield "library_name: mmfusion_jax"
    yield from license_lines(str(about.facts.get("license", "")))
    yield "tags:"
    for tag in ("jax", "flax", "multimodal", model_name(about), *modalities(about)):
        yield f"- {quoted(tag)}"
    if about.result is None:
        return
    score = about.result.test.scores
    shown_metrics = [name for name in headline(about) if score.get(name) is not None]
    if not shown_metrics:
        return
    yield "model-index:"
    yield f"- name: {quoted(model_name(about))}"
    yield "  results:"
    yield "  - task:"
    yield f"      type: {quoted('multimodal-' + info.task.kind)}"
    yield f"      name: {quoted(info.task.label)}"
    yield "    dataset:"
    yield f"      type: {quoted(info.identity.data.dataset)}"
    yield f"      name: {quoted(info.title)}"
    yield "      split: test"
    yield "    metrics:"
    for name in shown_metrics:
        yield f"    - type: {quoted(name)}"
        yield f"      name: {quoted(metrics[name].label)}"
        yield f"      value: {score[name]:.6g}"


def license_lines(license: str) -> Iterator[str]:
    """Yields the license of the weights, which is that of the data."""
    if not license:
        yield "license: unknown"
    elif license in NON_COMMERCIAL:
        yield f"license: {NON_COMMERCIAL[license]}"
    else:
        yield "license: other"
        yield "license_name: terms-of-the-training-data"
        yield "license_link: README.md"


def modalities(about: CardFacts) -> tuple[str, ...]:
    """Returns the modalities that the model reads."""
    return about.run.spec.model.modalities


def model_rows(about: CardFacts) -> Iterator[tuple[str, str]]:
    """Yields what is known of the model."""
    task, result = about.run.info.task, about.result
    yield "model", cell(model_name(about))
    yield "predicts", f"{cell(task.label)}, {task.kind}"
    if names := [*task.classes, *task.flags]:
        yield "classes" if task.classes else "flags", cell(join_names(names), 900)
    if task.range is not None:
        yield "range", f"{task.range[0]:g} to {task.range[1]:g}"
    yield "modalities", cell(join_names(modalities(about)))
    if result:
        yield "parameters", formatting.count(result.parameters.total)
        if result.macs_per_example:
            macs = formatting.significant(float(result.macs_per_example))
            yield "multiply-accumulates of an example", macs
        yield "checkpoint", f"step {result.step:d} of {result.steps:d}"
        yield "training time", formatting.seconds(result.times.total_s)
    else:
        yield "checkpoint", f"step {about.run.step:d}"
    identity = about.run.info.identity
    yield "fold, seed", f"{identity.fold:d}, {identity.seed:d}"


def data_rows(about: CardFacts) -> Iterator[tuple[str, str]]:
    """Yields what is known of the training data."""
    facts, identity = about.facts, about.run.info.identity.data
    yield "dataset", cell(about.run.info.title)
    yield "license of the data", cell(facts.get("license") or UNKNOWN, 300)
    yield "source", cell(facts.get("source") or UNKNOWN, 300)
    counts = [f"{cell(name)} {one.count}" for name, one in identity.splits.items()]
    yield "examples", ", ".join(counts)
    groups = {name: facts[name] for name in GROUPS if name in facts}
    for name, splits in groups.items():
        yield name, cell(", ".join(_group_sizes(splits)), 300)
    if not groups:
        yield "speakers of the splits", UNKNOWN
    yield "demographics", UNKNOWN
    for text in facts.get("warnings") or ():
        yield "note", cell(text, 300)


def _group_sizes(splits: Any) -> Iterator[str]:
    """Yields the number of groups of each split."""
    for split, names in splits.items() if isinstance(splits, Mapping) else ():
        size = len(names) if isinstance(names, list | tuple) else names
        yield f"{shown_name(split)} {shown_name(size)}"


def protocol_text(about: CardFacts) -> str:
    """Returns a sentence about the selection of the checkpoint."""
    protocol = about.run.spec.protocol
    return (
        f"Protocol “{shown_name(protocol)}”: the checkpoint is that with the "
        f"{SELECTED_CHECKPOINT[protocol]}."
        if protocol != "fixed_epochs"
        else "Protocol “fixed_epochs”: the checkpoint is that of the last step."
    )


def several_runs(about: CardFacts) -> bool:
    """Returns whether the mean over several runs is known."""
    return about.experiment is not None and len(about.experiment.runs) > 1


def headline(about: CardFacts) -> list[str]:
    """Returns the names of the scores of the card, the selection metric first."""
    assert about.result is not None  # its callers have looked
    select = about.run.spec.training.selection_metric
    return [*dict.fromkeys((select, *about.result.baseline.scores))]


def score_rows(
    about: CardFacts, metrics: Mapping[str, MetricInfo]
) -> Iterator[list[str]]:
    """Yields test scores with intervals, those of the baseline and of all runs."""
    if about.result is None:
        return
    names = headline(about)
    intervals = score_intervals(about, names)
    for name in names:
        metric = metrics[name]
        score, baseline = formatting.score, about.result.baseline.scores
        row = [cell(metric.label), score(metric, about.result.test.scores.get(name))]
        if name in intervals:
            low, high = intervals[name]
            row.append(f"{score(metric, low)} to {score(metric, high)}")
        else:
            row.append("–")
        row.append(score(metric, baseline[name]) if name in baseline else "–")
        if several_runs(about) and about.experiment:
            row.append(formatting.mean_std(metric, about.experiment.summary.test[name]))
        yield row


def score_intervals(
    about: CardFacts, names: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Returns bootstrap intervals over the test examples, by metric."""
    found = about.predictions
    if found is None or not np.isfinite(found.prediction).all():
        return {}
    task = build.build_task(about.run.spec, outline_of(about.run.info))
    truth, prediction = found.truth, found.prediction
    if about.run.info.task.kind != "regression":
        truth = truth.astype(int)
    needed = {"prediction", "truth"}
    infos = task.metrics().infos
    formulas = {
        name: infos[name].formula
        for name in names
        if name in infos and {*infos[name].needs} <= needed
    }
    if not formulas:
        return {}

    def scores(rows: Sequence[np.ndarray]) -> np.ndarray:
        part = {"truth": truth[rows[0]], "prediction": prediction[rows[0]]}
        return np.array([formula(part) for formula in formulas.values()])

    with warnings.catch_warnings():
        # A sample without an example of a class, whose score is then not defined.
        warnings.simplefilter("ignore")
        bounds = paired_bootstrap(scores, [len(truth)], LEVEL, resamples=RESAMPLES)
    finite = [(n, b) for n, b in zip(formulas, bounds, strict=True) if all(b == b)]
    return {name: (float(low), float(high)) for name, (low, high) in finite}


def interval_note(about: CardFacts) -> str:
    """Returns sentences about the intervals and the baseline."""
    if about.result is None:
        return ""
    parts = [
        f"Intervals: bootstrap over the test examples, {RESAMPLES} samples; examples "
        "of one person are not independent, so they are too narrow for new people.",
        f"Constant baseline: {cell(about.result.baseline.description)}.",
    ]
    if several_runs(about) and about.experiment:
        count = len(about.experiment.runs)
        parts.append(
            f"All runs: mean ± standard deviation over {count:d} folds and seeds, of "
            "which this model is one."
        )
    return " ".join(parts)


def recall_rows(about: CardFacts) -> Iterator[list[str]]:
    """Yields the recall of every class."""
    confusion = about.result.plot_data.confusion if about.result else None
    for i, row in enumerate(confusion or ()):
        name, total = about.run.info.task.classes[i], sum(row)
        if not total:
            yield [cell(name), UNKNOWN, "–", "0"]
            continue
        found = stats.binomtest(row[i], total).proportion_ci(LEVEL, method="wilson")
        score, unit = formatting.score, formatting.FRACTION
        low, high = float(found.low), float(found.high)
        interval = f"{score(unit, low)} to {score(unit, high)}"
        yield [cell(name), score(unit, row[i] / total), interval, str(total)]


def missing_table(
    about: CardFacts, metrics: Mapping[str, MetricInfo]
) -> tuple[list[str], list[list[str]]]:
    """Returns the heads and the rows of the scores without each modality."""
    result = about.result
    if result is None or result.diagnosis is None or not result.diagnosis.without:
        return [], []
    names = headline(about)[:4]
    cells = lambda scores: [formatting.score(metrics[n], scores.get(n)) for n in names]
    rows = [["–", *cells(result.test.scores)]]
    for modality, scores in result.diagnosis.without.items():
        rows.append([cell(modality), *cells(scores)])
    return [cell(metrics[name].label) for name in names], rows


def calibration_lines(
    calibration: Calibration | None,
) -> tuple[list[str], list[list[str]]]:
    """Returns sentences about the calibration, and the rows of its coverage."""
    if calibration is None:
        return ["Unknown: the run has no validation split to calibrate on."], []
    notes = (n.removeprefix("warning: ") for n in calibration_notes(calibration))
    lines = [f"{note[0].upper()}{note[1:]}." for note in notes]
    if calibration.temperature is not None:
        lines.append(
            f"Probabilities are softmax(logits / {calibration.temperature:.4g})."
        )
    if (test := calibration.test) is None:
        return [*lines, "Not measured on the test split."], []
    if test.ece is not None and test.ece_uncalibrated is not None:
        lines.append(
            f"Expected calibration error on test, n = {test.count:d}: "
            f"{formatting.score(formatting.FRACTION, test.ece)}, before calibration "
            f"{formatting.score(formatting.FRACTION, test.ece_uncalibrated)}."
        )
    percent = lambda x: formatting.score(formatting.FRACTION, x)
    rows = [
        [percent(c.nominal), percent(c.measured), formatting.significant(c.size)]
        for c in test.coverage
    ]
    return lines, rows


def limits(about: CardFacts) -> Iterator[str]:
    """Yields what is not known of the model, and what its scores do not show."""
    title = cell(about.run.info.title)
    yield (
        f"Trained and tested on {title} only; other recordings, languages, devices and "
        "people were not tested."
    )
    yield "Differences between speakers, genders and ages were not measured."
    yield (
        "Sets and intervals have their coverage for examples that are drawn like the "
        "validation split only."
    )
    yield (
        "Programs in StableHLO have a limited period of compatibility between versions "
        "of JAX; `model.safetensors` with `config.json` has not."
    )
    if about.experiment:
        yield from map(cell, score_warnings(about.experiment))
    yield from (cell(line, 400) for line in (*about.run.remarks, *about.remarks))


def snippet(about: CardFacts) -> str:
    """Returns a program that predicts with JAX alone; "" without StableHLO."""
    programs = [one for one in about.programs if one.file.endswith(".stablehlo")]
    if not programs:
        return ""
    first = programs[0]
    return SNIPPET.format(
        program=first.file,
        size=first.batch_size or 2,
        modalities=json.dumps([*modalities(about)]),
    )


def input_rows(about: CardFacts) -> Iterator[list[str]]:
    """Yields shape, dtype and scaling of every modality."""
    info = about.run.info
    for name in modalities(about):
        spec = info.inputs[name]
        scaling = info.preprocessing.scaling.get(name)
        shape = ", ".join(["b", *map(str, spec.shape)])
        kind = scaling.kind if scaling else "none"
        yield [cell(name), f"({shape})", cell(spec.dtype), kind]


def file_rows(about: CardFacts) -> Iterator[list[str]]:
    """Yields name and content of every file."""
    for name in about.files:
        if name in FILES:
            yield [f"`{name}`", FILES[name]]
    for one in about.programs:
        kind = "StableHLO" if one.file.endswith(".stablehlo") else "ONNX"
        size = "any batch size" if one.batch_size is None else f"b = {one.batch_size:d}"
        parts = [kind, size, *one.platforms]
        if one.difference is not None:
            parts.append(
                f"largest difference from the library {one.difference:.1e}, measured "
                "on random inputs"
            )
        yield [f"`{one.file}`", ", ".join(parts)]


def command(about: CardFacts) -> str:
    """Returns the command that trained the model."""
    text = about.experiment.command if about.experiment else UNKNOWN
    return shorten(re.sub(r"(?<=[=' ])[/~][^' ]*/", "", text), 2000)


def environment(about: CardFacts) -> str:
    """Returns versions, commit and seeds."""
    parts = [f"{shown_name(n)} {shown_name(v)}" for n, v in about.versions.items()]
    if about.experiment:
        seeds = sorted({run.seed for run in about.experiment.runs})
        parts.insert(0, f"seeds {join_names(seeds)}")
        parts.insert(1, f"commit {shown_name(about.experiment.git or UNKNOWN)}")
    identity = about.run.info.identity
    parts.append(f"config SHA-256 {shown_name(identity.config_sha256[:16])}")
    return cell("; ".join(parts), 900)
