"""What the demo predicts and shows, without a web page."""

import dataclasses
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.commands.demo_preview import Preview, preview
from mmfusion_jax.commands.demo_recording import complete_recording
from mmfusion_jax.commands.predict import RESPONSIBLE_USE, answer, calibration_lines
from mmfusion_jax.config.build import build_task
from mmfusion_jax.config.build_data import build_dataset
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.fingerprint import fingerprint
from mmfusion_jax.errors import (
    DataError,
    UserError,
    describe_exception,
    join_names,
    printable,
    shorten,
    shown_name,
)
from mmfusion_jax.inference.clip_inputs import ClipInput, has_features
from mmfusion_jax.inference.prediction import Prediction
from mmfusion_jax.inference.predictor import Predictor
from mmfusion_jax.inference.raw_example import RawExample, UnusableInput
from mmfusion_jax.inference.raw_inputs import InputReader
from mmfusion_jax.metrics.score_info import ScoreInfo
from mmfusion_jax.report import formatting
from mmfusion_jax.report.page import render
from mmfusion_jax.results.json_file import Number
from mmfusion_jax.results.model_result import RUN_FILE, TaskInfo, read_run
from mmfusion_jax.results.run_identity import data_differences
from mmfusion_jax.runner.predictor import outline_of
from mmfusion_jax.types import Batch

MAX_EXAMPLES = 10
"""Maximum number of test examples that the page offers."""

MAX_ROWS = 1000
"""Maximum number of examples of a file that the page offers."""

MAX_BARS = 12
"""Maximum number of classes with a bar; the most probable ones are shown."""


@dataclasses.dataclass(frozen=True)
class Selection:
    """What a page predicts.

    Attributes:
        path: An uploaded file; "" for an example of the test split.
        text: Transcript of a clip.
        index: Index of the example in the file, or of the test example.
    """

    path: str = ""
    text: str = ""
    index: int = 0


@dataclasses.dataclass(frozen=True)
class Bar:
    """A row of a chart: a name and a fraction, 0..1.

    Attributes:
        name: Class, flag or modality.
        value: Probability or weight.
        chosen: It is the prediction.
        member: It is in the conformal set.
    """

    name: str
    value: float
    chosen: bool
    member: bool


@dataclasses.dataclass(frozen=True)
class ModalityRow:
    """What one modality contributes.

    Attributes:
        name: The modality.
        state: "used", "off" or "missing".
        weight: Weight of the model, 0..1; None without weights.
        without: Prediction without it; "" if there is none.
        change: Change of the prediction without it; "" if there is none.
    """

    name: str
    state: str
    weight: float | None
    without: str
    change: str


class DemoModel:
    """A predictor with what the page offers.

    Args:
        predictor: The trained model.
        folder: Folder of the uploaded files, which messages do not show.
    """

    def __init__(self, predictor: Predictor, folder: Path):
        self.predictor = predictor
        self._folder = folder
        run = predictor.run
        self._reader = InputReader(run.spec, run.info)
        self._last: tuple[tuple[str, str], list[RawExample]] | None = None
        self.remark = ""
        self.examples = self._test_examples()

    @property
    def task(self) -> TaskInfo:
        """The label."""
        return self.predictor.run.info.task

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that the model reads."""
        return self.predictor.modalities

    @property
    def reads_clips(self) -> bool:
        """True if the model was trained on clips, False for features."""
        return self.predictor.run.info.preprocessing.decoding is not None

    @property
    def reads_text(self) -> bool:
        """True if a clip can have a transcript that the model reads."""
        tokenizer = self.predictor.run.info.preprocessing.tokenizer
        return self.reads_clips and "text" in self.modalities and tokenizer is not None

    def _test_examples(self) -> list[RawExample]:
        """Returns examples of the test split, if the features are on this machine."""
        run = self.predictor.run
        if self.reads_clips:
            return []
        try:
            data = build_dataset(run.spec, run.info.identity.fold)
            stored = run.info.identity.data
            if other := data_differences(stored, fingerprint(data)):
                self.remark = (
                    "no test examples are offered, because the data have changed since "
                    f"the training: {shorten('; '.join(other))}"
                )
                return []
            return test_examples(data, run.info.task, self.modalities)
        except UserError as error:
            self.remark = f"no test examples are offered: {shorten(error)}"
            return []

    def warm_up(self) -> None:
        """Compiles the model, so that the first prediction of a visitor is quick."""
        shapes = self.predictor.run.info.inputs
        inputs: dict[str, Any] = {
            m: np.zeros((1, *shapes[m].shape), shapes[m].dtype) for m in self.modalities
        }
        masks: dict[str, Any] = {
            m: np.ones((1, shapes[m].shape[0]), bool) for m in self.modalities
        }
        self.predictor.predict(Batch(inputs, masks), explain=False)

    def ids(self, selection: Selection) -> list[str]:
        """Returns the ids of the examples of a file, or of the test examples."""
        return [one.id for one in self._examples(selection)][:MAX_ROWS]

    def _examples(self, selection: Selection) -> list[RawExample]:
        """Returns the examples of a file, of which the last one is kept."""
        if not selection.path:
            return self.examples
        key = selection.path, selection.text
        last = self._last
        if last is None or last[0] != key:
            last = self._last = key, self._read(*key)
        return last[1]

    def _read(self, path: str, text: str) -> list[RawExample]:
        """Reads a file that was uploaded."""
        if has_features(Path(path)):
            found = self._reader.read_features(Path(path))
        else:
            clip = complete_recording(Path(path)) if self.reads_clips else path
            found = self._reader.read_clips([ClipInput(clip, text)])
        examples = []
        for one in found:
            if isinstance(one, UnusableInput):
                raise one.error
            examples.append(one)
        return examples

    def predict(
        self, selection: Selection, used: Sequence[str], coverage: float
    ) -> tuple[RawExample, Prediction]:
        """Returns an example and its prediction.

        Args:
            selection: The example.
            used: Modalities that the model may use; the others are masked.
            coverage: Nominal coverage of the set or interval, 0..1.

        Raises:
            DataError: The file cannot be read, or does not fit the model.
        """
        examples = self._examples(selection)
        if not 0 <= selection.index < len(examples):
            raise DataError("D26", "the inputs have no example.", "upload a file")
        example = examples[selection.index]
        row: Callable[[Any], dict[str, Any]] = lambda part: {
            m: np.asarray(part[m])[None] for m in self.modalities
        }
        found = self.predictor.predict(
            Batch(row(example.inputs), row(example.masks)),
            leave_out=[m for m in self.modalities if m not in used],
            coverage=coverage,
        )
        return example, dataclasses.replace(
            found[0], id=example.id, remarks=list(example.remarks)
        )

    def show(self, selection: Selection, used: Sequence[str], coverage: float) -> str:
        """Returns a prediction as HTML; an error is shown as its message.

        Args:
            selection: The example.
            used: Modalities that the model may use.
            coverage: Nominal coverage of the set or interval, 0..1.
        """
        return self.guarded(lambda: self._result(selection, used, coverage))

    def guarded(self, make: Callable[[], str]) -> str:
        """Returns what a function returns, or the message of its error, as HTML."""
        try:
            return make()
        except UserError as error:
            return self.message(error.code, str(error.args[0]), error.fix)
        except Exception as error:
            # The page must not end by a bug, and must not show a traceback.
            traceback.print_exc(file=sys.stderr)
            where = "the traceback is in the terminal of the demo"
            return self.message("B00", f"bug: {describe_exception(error)}", where)

    def message(self, code: str, text: str, fix: str) -> str:
        """Returns a message as HTML, without the folder of the uploaded files.

        Args:
            code: Code of the error.
            text: What is wrong.
            fix: Remedy; "" for none.
        """
        uploads = re.compile(rf"{re.escape(str(self._folder))}/(?:[^/\s]+/)?")
        clean = lambda line: " ".join(uploads.sub("", printable(line)).split())
        return render("demo_error.html", code=code, text=clean(text), fix=clean(fix))

    def _result(
        self, selection: Selection, used: Sequence[str], coverage: float
    ) -> str:
        """Returns a prediction as HTML."""
        example, found = self.predict(selection, used, coverage)
        missing = [m for m in self.modalities if not example.masks[m].any()]
        return render(
            "demo_result.html",
            name=_example_name(selection, found.id),
            label=self.task.label,
            kind=self.task.kind,
            answer=answer(found) or "none",
            found=found,
            known=len(found.missing) < len(self.modalities),
            bars=self._bars(found),
            hidden=max(0, len(found.probabilities) - MAX_BARS),
            range=self.task.range,
            modalities=self._modality_rows(found, used, missing),
            previews=self._previews(example),
            notes=self._notes(found, missing),
        )

    def _bars(self, found: Prediction) -> list[Bar]:
        """Returns the probabilities, in the order of the classes."""
        members = found.prediction_set or []
        chosen = {found.label, *found.flags}
        names = [*found.probabilities]
        ranked = sorted(names, key=lambda name: -found.probabilities[name])
        return [
            Bar(name, found.probabilities[name], name in chosen, name in members)
            for name in names
            if name in ranked[:MAX_BARS]
        ]

    def _modality_rows(
        self, found: Prediction, used: Sequence[str], missing: Sequence[str]
    ) -> list[ModalityRow]:
        """Returns what every modality contributes."""
        rows = []
        for name in self.modalities:
            state = "off" if name not in used else "used"
            state = "missing" if name in missing else state
            weight = found.weights.get(name) if state == "used" else None
            left = found.without.get(name)
            without = change = ""
            if left is not None and left.score is not None:
                without, change = f"{left.score:.3g}", f"{left.change:+.2g}"
            elif left is not None:
                without = left.label or ", ".join(left.flags) or "none"
                change = f"{left.change:+.2f}"
            rows.append(ModalityRow(name, state, weight, without, change))
        return rows

    def _previews(self, example: RawExample) -> list[Preview]:
        """Returns what can be shown of the inputs."""
        tokenizer = self.predictor.run.info.preprocessing.tokenizer
        words = tokenizer.vocabulary if tokenizer else ()
        found = (
            preview(m, example.inputs[m], example.masks[m], words)
            for m in self.modalities
        )
        return [one for one in found if one is not None]

    def _notes(self, found: Prediction, missing: Sequence[str]) -> list[str]:
        """Returns sentences about a prediction."""
        run, lines = self.predictor.run, []
        if missing:
            lines.append(
                f"the example does not have {', '.join(map(shown_name, missing))}"
            )
        if found.missing and (score := self.predictor.score_without(found.missing)):
            lines.append(score.removeprefix(": "))
        return [*lines, *found.remarks, *calibration_lines(run)]

    def header(self) -> str:
        """Returns the run and its test scores as HTML."""
        run = self.predictor.run
        source = self.predictor.config["model"]["name"]
        return render(
            "demo_header.html",
            name=run_title(run.folder),
            model=str(source).rpartition(":")[2],
            data=run.info.title,
            label=self.task.label,
            modalities=self.modalities,
            score=self._score(),
            remarks=run.remarks,
        )

    def _score(self) -> str:
        """Returns the test scores, their number of examples and the baseline."""
        run = self.predictor.run
        test = run.info.identity.data.splits.get("test")
        result = read_run(run.folder) if (run.folder / RUN_FILE).exists() else None
        if run.scores is None or test is None:
            return "no test score is stored with the run"
        scores: dict[str, Number] = {run.scores.metric: run.scores.score}
        baseline: Mapping[str, Number] = {}
        description = ""
        if result is not None:
            if "accuracy" in result.test.scores:
                scores["accuracy"] = result.test.scores["accuracy"]
            baseline, description = (
                result.baseline.scores,
                result.baseline.description,
            )
        task = build_task(run.spec, outline_of(run.info))
        infos = task.metrics().infos
        parts = []
        for name, value in scores.items():
            label = infos[name].label if name in infos else name
            shown = _metric_text(infos, name, value)
            part = f"{shown_name(label)} {shown_name(shown)}"
            if name in baseline:
                other = _metric_text(infos, name, baseline[name])
                part += f" ({shorten(description)}: {shown_name(other)})"
            parts.append(part)
        return f"test {join_names(parts)}, n = {test.count:d}"

    def footer(self) -> str:
        """Returns the sentence on responsible use as HTML."""
        return render("demo_footer.html", text=RESPONSIBLE_USE)


def _metric_text(infos: Mapping[str, ScoreInfo], name: str, value: Number) -> str:
    """Returns a score with its unit."""
    if name in infos:
        return formatting.score(infos[name].shown, value)
    return formatting.significant(value)


def _example_name(selection: Selection, example: str) -> str:
    """Returns the name of an example without the folder of its file."""
    file = Path(selection.path)
    if not selection.path or not has_features(file):
        return Path(example).name if selection.path else example
    return f"{shorten(file.name)}, example {shorten(example)}"


def run_title(folder: Path) -> str:
    """Returns the name of a run: that of its workdir, with fold and seed."""
    folder = folder.resolve()
    if folder.name.startswith("seed_") and folder.parent.name.startswith("fold_"):
        return "/".join(folder.parts[-3:])
    return folder.name


def test_examples(
    data: Dataset, task: TaskInfo, modalities: Sequence[str]
) -> list[RawExample]:
    """Returns examples of the test split, as many different labels as possible.

    Args:
        data: The dataset of the run.
        task: The label.
        modalities: Modalities of the model.
    """
    source, labels = data.source("test"), data.label("test", task.label)
    ids = data.example_id_list("test")
    if task.kind == "classification":
        first = [np.flatnonzero(labels == k)[:1] for k in range(len(task.classes))]
        chosen = np.concatenate(first)[:MAX_EXAMPLES]
    else:
        chosen = np.unique(np.linspace(0, len(labels) - 1, MAX_EXAMPLES).astype(int))
    found = []
    for i in map(int, chosen):
        example = source[i]
        take = lambda part, example=example: {
            m: np.asarray(example[part][m]) for m in modalities
        }
        label = label_text(labels[i], task)
        truth = f"the label of this test example: {shorten(label)}"
        found.append(RawExample(ids[i], take("inputs"), take("masks"), (truth,)))
    return found


def label_text(value: Any, task: TaskInfo) -> str:
    """Returns a label as text.

    Args:
        value: Index of a class, a number, or (k) flags.
        task: The label.
    """
    if task.kind == "classification":
        return shown_name(task.classes[int(value)])
    if task.kind == "regression":
        return f"{float(value):.3g}"
    names = [n for n, one in zip(task.flags, value, strict=True) if one]
    return ", ".join(map(shown_name, names)) or "none"
