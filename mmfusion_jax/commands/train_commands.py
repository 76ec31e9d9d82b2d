"""Finds the configs that train on an import, by tracing the shapes of their models."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from mmfusion_jax.cli.flags import Flag, parse
from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.load import Config, load_config
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.datasets.sentiment_files import TEXTS
from mmfusion_jax.data.feature_files.emotion_labels import CLASS, FLAGS
from mmfusion_jax.data.feature_files.findings import copies
from mmfusion_jax.data.feature_files.summary import FileSummary
from mmfusion_jax.errors import UserError, shorten, shown_name
from mmfusion_jax.training.step import make_eval_step
from mmfusion_jax.types import Batch, PyTree

MODALITIES = ("text", "audio", "video")
WORKDIR = Flag("workdir", "", "output folder")
OUT_OF_VOCABULARY = "C30"
WORD_VECTORS = "mult"
"""Beginning of the layout whose text is a vector for each word, not of a sentence."""

LEARNED = ("conv_lstm", "conv1d")
"""Encoders that learn an embedding of ids of any vocabulary."""

_EMOTION_FLAGS = {
    "score": [
        f"--config.data.label={FLAGS}",
        "--config.losses.task.name=multilabel",
        "--config.train.selection_metric=f1",
    ],
    "polarity": [f"--config.data.label={CLASS}"],
}
"""Label of a config -> flags for a file that has emotions and no scores."""

FIRST_STEP = "mcl_mcf"
"""The paper whose model takes the first step of the text for the sentence, as of BERT;
the encoder lstm has one step, its last state."""


@dataclasses.dataclass(frozen=True)
class TrainCommands:
    """Configs for an import.

    Attributes:
        commands: Command lines that train on it.
        misfits: Sentences on configs that do not fit: those with ids that have no
            embedding, those whose error is a bug, and, if no config fits, all of them.
    """

    commands: list[str]
    misfits: list[str]


def find_train_commands(found: FileSummary, file: str) -> TrainCommands:
    """Returns the commands that train on an import.

    Every config of the dataset is resolved with the flags that the file requires, and
    its loss is traced with the shapes of the import. Nothing is compiled.

    Args:
        found: The import.
        file: Value of `config.data.file`; "" if there is only one import.
    """
    if found.spec is None:
        return TrainCommands([], [])
    # Shapes do not need an accelerator, which another process may hold.
    jax.config.update("jax_platforms", "cpu")
    commands, misfits, always = [], [], []
    for word in found.spec.configs:
        flags, error = _first_fit(word, found, file)
        if error is None:
            commands.append(command_line(word, flags))
            continue
        about = error.args[0] if isinstance(error, UserError) else error
        line = f"{shown_name(word)} does not fit: {shorten(about)}"
        misfits.append(line)
        # A config whose error is not one of the user's would be missed without a word.
        if not isinstance(error, UserError) or error.code == OUT_OF_VOCABULARY:
            always.append(line)
    return TrainCommands(commands, always if commands else misfits)


def _first_fit(
    word: str, found: FileSummary, file: str
) -> tuple[list[str], Exception | None]:
    """Returns the first flags with which a config fits, or the first error."""
    first: Exception | None = None
    for flags in _variants(word, found, file):
        try:
            trace_loss(word, flags)
        except Exception as error:
            first = first or error
        else:
            return flags, None
    return [], first


def command_line(word: str, flags: list[str]) -> str:
    """Returns the command that trains a config."""
    paper, _, data = word.partition(":")
    words = " ".join([f"--config=configs/{paper}.py:{data}", *flags])
    return f"python -m mmfusion_jax.main {shorten(words, 1000)}"


def trace_loss(word: str, flags: list[str]) -> None:
    """Traces the training loss and the metrics of a config on its data.

    Args:
        word: The config, such as "mea:mosi".
        flags: Its flags, such as "--config.data.text=words".

    Raises:
        UserError: The config does not fit the data.
    """
    request = parse([f"--config={word}", *flags], (WORKDIR,), True)
    spec = dataclasses.replace(resolve(request.config), parallel="jit")
    data = build_data.build_dataset(spec, build_data.fold_numbers(spec)[0])
    build_data.check_ids(spec, data)
    pipeline = build_data.build_pipeline(spec, data, spec.seed)
    task = build.build_task(spec, data)
    plan = build.build_plan(spec, task, pipeline.steps_per_epoch)
    parts = build.build_components(spec, data, plan.steps)

    evaluate = make_eval_step(
        parts.model, parts.objective, parts.task.metrics(), parts.modalities
    )

    def loss_and_scores(batch: Batch) -> PyTree:
        key = jax.random.key(0)
        variables = parts.model.init(key, batch, train=False)
        outputs, _ = parts.model.apply(
            variables,
            batch,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        loss, _ = parts.objective(outputs, batch, jnp.array(0))
        return loss, evaluate(variables, batch)

    jax.eval_shape(loss_and_scores, pipeline.dummy_batch())


def _variants(word: str, found: FileSummary, file: str) -> Iterator[list[str]]:
    """Yields the flags with which a config may fit an import; the first one that does.

    Texts and encoders that a config would silently use in another way than its paper,
    such as a BERT on ids of another vocabulary, are not offered.
    """
    config: Config = load_config(word)
    encoders, wanted = config.model.encoders, config.data.text
    inputs = found.splits["train"].inputs
    texts = [text for text, stored in TEXTS.items() if stored in inputs]
    absent = [m for m in ("audio", "video") if m not in inputs]
    absent += [] if texts else ["text"]
    common = [f"--config.data.file={file}"] if file else []
    common += ["--config.data.equal_clips=True"] if copies(found) else []
    if "score" not in found.splits["train"].labels:
        common += _EMOTION_FLAGS.get(config.data.label, [])
    common += [
        f"--config.model.encoders.{modality}=None"
        for modality in MODALITIES
        if modality in absent and modality in encoders
    ]
    if not texts:
        yield common
        return
    first_step = word.startswith(FIRST_STEP) and encoders.text.name != "lstm"
    if wanted in texts:
        by_word = found.layout.startswith(WORD_VECTORS) and wanted == "vectors"
        lstm = ["--config.model.encoders.text.name=lstm"]
        yield [*common, *(lstm if by_word and first_step else [])]
        return
    if wanted != "vectors" or word.startswith(FIRST_STEP):
        yield common  # an error, which is the reason
        return
    for text in texts:
        stored, learned = TEXTS[text], encoders.text.name in LEARNED
        if text == "bert" and not learned:
            continue
        highest = max(part.inputs[stored].high or 0 for part in found.splits.values())
        flags = [*common, f"--config.data.text={text}"]
        if not learned:
            flags.append("--config.model.encoders.text.name=conv_lstm")
        size = f"--config.model.encoders.text.vocab_size={int(highest) + 1:d}"
        yield [*flags, size]
