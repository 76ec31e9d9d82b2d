"""Error codes: kind, title and explanation of each, the source of docs/errors.md.

python -m mmfusion_jax.error_codes > docs/errors.md
"""

import dataclasses
import textwrap

from mmfusion_jax import errors

WIDTH = 90
INTRODUCTION = """\
<!-- Generated: python -m mmfusion_jax.error_codes > docs/errors.md -->

# Errors

An error message has one to four lines: what is wrong and where, then how to fix it. The
letter of the error code is the kind of error, which determines the exit code of the
command.
"""
EXIT_CODES = """\
An interrupted command that has saved everything exits with 130 (Ctrl-C) or 143
(SIGTERM). The traceback of an error is in `run.log` in the workdir; `--debug` also
prints it.
"""


@dataclasses.dataclass(frozen=True)
class ErrorKind:
    """A kind of error.

    Attributes:
        letter: First letter of its codes.
        title: Subject of these errors.
        error: Exception class, which has the exit code.
    """

    letter: str
    title: str
    error: type[errors.UserError]


@dataclasses.dataclass(frozen=True)
class ErrorCode:
    """A code that error messages show, such as "error[D07]".

    Attributes:
        code: Letter of the kind and two digits.
        title: Cause, in a few words.
        explanation: Causes and fixes; Markdown, in one paragraph.
    """

    code: str
    title: str
    explanation: str


ERROR_KINDS: dict[str, ErrorKind] = {
    kind.letter: kind
    for kind in (
        ErrorKind("B", "bug in the library", errors.UserError),
        ErrorKind("C", "flag, config file, config field or choice", errors.ConfigError),
        ErrorKind(
            "E",
            "environment, such as an optional library",
            errors.MissingDependencyError,
        ),
        ErrorKind("D", "data", errors.DataError),
        ErrorKind("N", "non-finite numbers", errors.DivergedError),
        ErrorKind("K", "checkpoints", errors.CheckpointError),
        ErrorKind("W", "pretrained weights", errors.WeightsError),
    )
}
"""Letter -> kind."""


def _code(code: str, title: str, explanation: str) -> ErrorCode:
    """Returns an error code whose explanation has no line breaks."""
    return ErrorCode(code, title, " ".join(explanation.split()))


_CODES = (
    _code(
        "B00",
        "Bug in the library",
        """An exception of the code of this library. Please report it with the command
        and the traceback: the message shows its last lines, and the file that has all
        of them. An exception of your own code is another error (C04, C32, C33).""",
    ),
    _code(
        "C01",
        "Unknown flag or command",
        """The command line has an unknown flag or command, a flag without a value, or
        one argument too many, or `--config` is missing. `--help` lists the flags of a
        command and the config files that exist.""",
    ),
    _code(
        "C02",
        "Unknown config field",
        """A flag or config file sets a field that does not exist. The message suggests
        the closest field name, or shows which group of the config has a field of that
        name. `--print_config` lists all fields. A group of fields cannot be set as a
        value: set a field in it.""",
    ),
    _code(
        "C03",
        "Unknown name",
        """A flag or field is set to an unknown name. The message suggests the closest
        name, or lists the known names. On the command line, `--config.model.name` can
        replace the model of a config with `fused`, a baseline or a model of your own
        only: the loss terms and hyperparameters of the models of the papers are in
        their configs.""",
    ),
    _code(
        "C04",
        "Config file cannot be loaded",
        """The config file does not exist, is not valid Python or has no function
        `get_config`, or `get_config` raises an error or does not return a ConfigDict.
        The message shows the line of the error. In `--config=FILE.py:WORD`, the part
        after the colon is the argument of `get_config`.""",
    ),
    _code(
        "C05",
        "Batch size is not divisible",
        """`config.data.batch_size` is not a multiple of the number of devices times
        `config.optim.gradient_accumulation_steps`. The message suggests a batch
        size.""",
    ),
    _code(
        "C06",
        "Fold or protocol does not fit",
        """`config.data.fold` is not a fold of the dataset: `all` runs every fold, a
        number runs one. Or `config.protocol` is `fixed_epochs`, which trains on all
        folds but one for a fixed number of epochs, and the dataset has fixed splits:
        use `validation`. Or the folds leave no training data, or an option requires
        folds and the dataset has only one.""",
    ),
    _code(
        "C07",
        "Unknown label",
        """`config.data.label` is not a label of the dataset, or a loss or metric reads
        a label that a `Batch` does not have. The message suggests the closest one.""",
    ),
    _code(
        "C08",
        "Weight decay requires AdamW",
        """`config.optim.weight_decay` is decoupled weight decay, which requires
        `--config.optim.name=adamw`. With other optimizers, use
        `config.optim.coupled_weight_decay`, which adds the decay to the gradients (L2
        regularization).""",
    ),
    _code(
        "C09",
        "Workdir of another config",
        """The workdir was created with another config. A workdir belongs to one
        config, so that a result never mixes two of them. Choose another `--workdir`,
        or use the config of that run, which is in `config.json` in the workdir; without
        this file, that of its checkpoints counts. One
        field may change: a larger `--config.seeds` adds runs.""",
    ),
    _code(
        "C10",
        "Value out of range",
        """A number is out of range, or two options exclude each other. The message
        shows the values that are valid.""",
    ),
    _code(
        "C11",
        "Value has the wrong type",
        """The value of a flag or field has the wrong type, or is a single value
        instead of a group of fields. Separate the elements of a tuple with commas:
        `1,2,3`.""",
    ),
    _code(
        "C12",
        "Missing or wrong coordinator address",
        """The address at which the processes of a run connect is not given, is not
        HOST:PORT, or process 0 cannot listen at it, for example because another program
        uses the port; or it is given with a mode that does not read it. Start every
        process with the same `--config.distributed.num_processes` and
        `--config.distributed.coordinator=HOST:PORT`, where HOST is the machine of
        process 0 and PORT is a free port on it from 1 to 65535, and with a different
        `--config.distributed.process_id`.""",
    ),
    _code(
        "C13",
        "Modality has no encoder",
        """`config.pretrain_unimodal`, or an option of the model, of its fusion block or
        of a term of `config.losses`, such as `modalities`, names a modality that has no
        encoder in `config.model.encoders`.""",
    ),
    _code(
        "C14",
        "Missing loss term `task`",
        """`config.losses` has no term named `task`, which compares the prediction with
        the label; evaluations report it as the loss. Name the term of the label
        `task`.""",
    ),
    _code(
        "C15",
        "Empty parameter group",
        """`config.optim.groups.NAME.param_prefix` matches no parameters of the model.
        It is a prefix of the parameter names in the group, such as `encoders_text`.
        The message lists the modules of the model.""",
    ),
    _code(
        "C16",
        "Metric does not fit the label",
        """`config.train.selection_metric` is not a metric for the label
        `config.data.label`: the message lists the metrics for this label. Or a metric
        of `config.metrics` has the name of one of them, or its formula fails for the
        predictions of this label: choose another name, or remove the metric.""",
    ),
    _code(
        "C17",
        "Model output does not exist",
        """A term of `config.losses` requires an output that the model does not
        produce. The message suggests the closest output. The modalities or pairs of
        the term must be those of the model; outputs that begin with `ctc/` are those
        of the encoder `ctc_aligned`. If an option of the model removes an
        output, set the weight of the terms that require it to 0, for example
        `--config.losses.disparity.weight=0`; `configs/mea.py` lists the terms that
        depend on each option.""",
    ),
    _code(
        "C18",
        "Integration score cannot be computed",
        """The Multimodal Integration Score (`config.mis`) cannot be computed: its
        three weights do not add up to 1, the label is not a class label, or the model
        has no unimodal heads, whose predictions are compared with the prediction from
        all modalities. Remove `config.mis` and set another
        `config.train.selection_metric`.""",
    ),
    _code(
        "C22",
        "Encoders do not match",
        """The encoders of the config do not match the model or the data: the model
        requires an encoder that is missing or takes fewer encoders,
        `config.model.modality_order` lists other modalities, or an encoder is for a
        modality that the dataset does not have, or was removed by a flag and the model
        needs it. The message lists both sides; fix `config.model.encoders`, or use a
        model that works with any encoders, such as `--config.model.name=fused`.""",
    ),
    _code(
        "C23",
        "Pretrained model does not match",
        """The weights of a pretrained model cannot be copied: it has no such
        submodule, or its layers have other shapes. Pretrain with the same encoder, or
        remove the modality from `config.pretrain_unimodal`.""",
    ),
    _code(
        "C24",
        "Features are not divisible",
        """The number of features of a clip is not a multiple of `features_per_token`
        of the encoder `feature_tokens`.""",
    ),
    _code(
        "C25",
        "Invalid number of convolution groups",
        """`base_channels` of the encoder `resnext_3d` is odd, and its convolutions
        have half as many groups. Set it to an even number.""",
    ),
    _code(
        "C26",
        "Wrong input for the encoder",
        """The input of an encoder has the wrong type, shape or length. `bert` expects
        token ids (b, t), at most `max_position_embeddings` of them: increase it in
        `config.model.encoders`, or truncate the text. `lstm` and `precomputed` expect
        features, such as word embeddings, and not token ids. So does `ctc_aligned`,
        with at least `length` steps. `wav2vec2` expects an
        audio waveform (b, t) of floats with enough samples for one frame, which are
        400 with the default kernels.""",
    ),
    _code(
        "C27",
        "Missing vocabulary size",
        """The encoder `conv_lstm` or `conv1d` got token ids but no vocabulary size, or
        features without a feature axis. For token ids (b, t), set `vocab_size` in
        `config.model.encoders`; features must be (b, t, f).""",
    ),
    _code(
        "C28",
        "Encoder output dims differ",
        """The encoders of a model output tokens of different dims, but its attention
        compares them with each other. Set the same `hidden_dim` for all of
        `config.model.encoders`.""",
    ),
    _code(
        "C29",
        "Vectors too short for the convolutions",
        """The vectors in a tensor convolution are too short: each 3x3 convolution
        removes 2 elements. Increase `config.model.projection_dim`, or use fewer
        `config.model.channels`.""",
    ),
    _code(
        "C30",
        "Token id outside the vocabulary",
        """The data has a token id for which the encoder has no embedding; its output
        would be NaN. The message shows the config field, its value and the range of
        the ids. Set `vocab_size` to the size of the vocabulary that the ids are
        from. The vocabulary of pretrained weights cannot be changed: use weights of the
        vocabulary that the ids are from, with its `vocab_size`, or ids of the
        vocabulary of the weights; transcripts of clips get these with
        `config.data.vocabulary`.""",
    ),
    _code(
        "C31",
        "Missing config field",
        """A required field of the config, or a required option of a part, is missing or
        has no value; flags can set an option of a part that another flag chose. Start
        the config from `base_config()` in
        `mmfusion_jax.config.base`, which sets every field that has a default, or add
        what the message names.""",
    ),
    _code(
        "C32",
        "Part cannot be imported",
        """A config can name a part of any package as `package.module:Name`. Here the
        module cannot be imported, or it has no such name; the message shows the error.
        Or the name is not a class or function. Correct the path, install the package,
        or add its folder to `PYTHONPATH`.""",
    ),
    _code(
        "C33",
        "Error in a part",
        """A part that the config names by its import path raises an error, or is not
        what a part of its kind must be: a model is a Linen module that returns
        `Outputs` with a prediction of the size of the label, an encoder returns
        `Tokens`, a loss one value per example, a dataset function a `Dataset`.
        CONTRIBUTING.md has an example of each. The message shows what the part
        returned, or the lines of your code that the exception passed through, the
        innermost last, and the group of the config that names the part. The entire
        traceback is in `run.log`, and `--debug` prints it. If the last line calls a
        function of this library as its docstring describes, please report it.""",
    ),
    _code(
        "C34",
        "Loss does not fit the label",
        """A term of `config.losses` cannot compare the predictions with the label: use
        `cross_entropy` for classes, `l1` or `mse` for numbers, and `multilabel` for
        binary labels. `multiplicative` and `consistency` are for classes.""",
    ),
    _code(
        "C38",
        "Runs cannot be compared",
        """`compare` needs at least two finished runs that predict the same label of the
        same test examples with the same protocol: a difference between other runs is
        not one of their models. The message shows what differs. Examples are matched
        by id, `Dataset.example_ids`; their order does not matter. Other models, losses,
        seeds, training hyperparameters and inputs may differ.""",
    ),
    _code(
        "C39",
        "Config names code of another package",
        """The config that is stored with a run names a model, a loss or another part
        by the import path of a package, whose code would be run when the run is
        loaded. A run of somebody else may name any code, so such packages must be
        allowed by name: `--packages=my_package`, or `packages=("my_package",)` in
        Python.""",
    ),
    _code(
        "C40",
        "Path is an address",
        """A path begins with `gs://`, `s3://`, `https://` or another scheme. Files are
        read and written in local folders: copy them to this machine, or mount the
        bucket as a folder, for example with `gcsfuse` or `mount-s3`, and give that
        folder. A work folder on a mounted bucket must allow renames of folders, or the
        checkpoints cannot be saved.""",
    ),
    _code(
        "C41",
        "Processes of a cluster do not join",
        """SLURM, Open MPI, MPICH or a Cloud TPU started several processes, and the
        config is of one process, which would train the entire run in each of them.
        `--config.distributed.mode=auto` joins them to one run, as the cluster describes
        them to JAX; `--config.distributed.mode=off` trains in each by itself, with a
        `--workdir` of its own. Or the mode is `auto` and JAX recognizes no cluster; it
        does not recognize MPICH: set `coordinator`, `num_processes` and
        `process_id`.""",
    ),
    _code(
        "C45",
        "Model cannot be converted to ONNX",
        """`export --onnx` is an experiment: `jax2onnx` does not convert every operation
        of JAX, and what it converts is compared with the model in ONNX Runtime. The
        message shows the operation, or the difference. Nothing was written. Export
        without `--onnx`: StableHLO has all models, and JAX alone runs it.""",
    ),
    _code(
        "D07",
        "Wrong label in the labels file",
        """A label is not one of the classes, occurs only once and is similar to
        another one (a likely typo), differs from another one in spelling only, is a
        missing value such as NA, or all labels are the same. Correct the lines that the
        message shows. If such a label is correct, list all classes:
        `--config.data.classes=a,b,c`. If the labels are scores, name the column
        `score`.""",
    ),
    _code(
        "D10",
        "Speaker appears in two splits",
        """A speaker, actor or video appears in two splits (data leakage). Metrics on
        such a split measure how well a model recognizes people. Put each speaker in
        one split only.""",
    ),
    _code(
        "D11",
        "Label out of range",
        """A label has a value that its type does not allow: a class must be an integer
        below the number of classes, a flag must be 0 or 1, a score must be in the
        range of the dataset. This is checked before training, because such labels
        would train a wrong model without any error.""",
    ),
    _code("D12", "Training split is empty", "The training split has no examples."),
    _code(
        "D13",
        "Input too small for the encoder",
        """The audio is shorter than the minimum of its encoder: use longer clips, or a
        smaller `config.model.encoders.audio.pool`. Or an image is too small for the
        convolutions of `image_cnn`, each of which halves it: use larger images, fewer
        `channels`, or a smaller `downsample`. Or the size of an image is not a
        multiple of `patch_size` of `vit`. Or a sequence is shorter than one token of
        `conv1d`: use smaller `pools`.""",
    ),
    _code(
        "D14",
        "Training example without modalities",
        """A training example has none of its modalities, so a model can learn nothing
        from it but how frequent its label is. Remove it from the training split. In
        evaluation this is not an error: the prediction falls back to the prior, which
        is the class frequencies (for regression, the median) of the training
        split.""",
    ),
    _code(
        "D15",
        "Synonyms or vocabulary cannot be read",
        """The vocabulary of transcripts or of a text augmentation is not given, cannot
        be read or lacks [UNK], or no line of the synonym table has two words of it.""",
    ),
    _code(
        "D20",
        "Cache was removed",
        """Cached data was removed while it was in use. Rerun the command, which builds
        what is missing.""",
    ),
    _code(
        "D21",
        "Corrupted cache",
        """Cached data is corrupted: a file is missing, has the wrong size, or does not
        match its checksum, or its manifest lacks a field or has a wrong value. Or
        another version of the library imported a feature file. Delete the folder that
        the message shows and rerun the command that the message shows, or that built
        it. If this happens twice, check the disk.""",
    ),
    _code(
        "D22",
        "Cache cannot be written",
        """Cached data cannot be written: the disk is full, or the folder is not
        writable. Free disk space, or set the environment variable `MMFUSION_CACHE` to
        another folder.""",
    ),
    _code(
        "D23",
        "Empty split",
        """A split of the dataset has no examples. Add examples, or remove the
        split.""",
    ),
    _code(
        "D24",
        "Worker processes cannot be started",
        """The processes that decode clips cannot be started. `workers=0` decodes in the
        main process, without a time limit.""",
    ),
    _code(
        "D25",
        "Malformed dataset or example",
        """A dataset does not have the form of `Dataset`, or an example of it, or what
        an augmentation returns, not that of `Example`, both in
        `mmfusion_jax/data/dataset.py`. An example is a dictionary of inputs, masks (one
        boolean per time step of the input), labels and weight. All examples of a split
        must have the same shapes: pad shorter clips, and mask the padding. A dataset
        has the splits `train` and `test`, and optionally `valid`.""",
    ),
    _code(
        "D26",
        "Input does not fit the model",
        """A file or an array that a prediction was asked for is not what the model
        was trained on: another number of features, unknown token ids, a modality that
        it does not read, or clips where the model reads features. The message shows
        the shapes that it reads; `t` is the number of steps and may differ.""",
    ),
    _code(
        "D29",
        "Store cannot be removed",
        """`data remove` does not delete a store that is a link to a folder outside of
        the cache, nor one that another process is building or reading. Open files of
        processes can be seen on Linux only.""",
    ),
    _code(
        "D30",
        "File not found",
        """A file does not exist or cannot be opened, or the path is not a regular file
        but a folder, FIFO, socket or device, which are not read.""",
    ),
    _code(
        "D31",
        "Not a video or audio file",
        """A file is not a clip: it is empty, contains zeros only, or is an HTML page
        instead of a download, a text file, a pointer of Git LFS (`git lfs pull`
        replaces it), an AppleDouble file (`._x.mp4`), an archive or an image, or has
        no video or audio stream that can be decoded. Download it again; if the page
        requires a login, log in first. Or neither frames nor audio of a clip can be
        used.""",
    ),
    _code(
        "D32",
        "Corrupted or truncated clip",
        """A clip could not be decoded, or it is cut short: its file is smaller than the
        sizes in it, its index (moov) is missing, its end is zeros, or its video or
        audio is more than 2 % (and 0.1 s) shorter than the file header specifies. Copy
        or download it again. `ffmpeg -i FILE -c copy NEW` makes a shorter, complete
        clip of what is there.""",
    ),
    _code(
        "D33",
        "Audio cannot be used",
        """The audio of a clip without frames has too few samples after the offset
        (features need a window of 2048), is longer than memory allows, or contains NaN
        or infinite values. Use a longer clip, a smaller `offset`, or segments. In a
        clip with frames, too little audio is masked, with a remark.""",
    ),
    _code(
        "D34",
        "Time span exceeds the clip",
        """The time span in the labels file ends or starts after the end of the clip.
        Correct `start` and `end`, which are in seconds.""",
    ),
    _code(
        "D40",
        "Dataset not found",
        """The folder of a dataset (`config.data.data_dir`) or its labels file does not
        exist, or does not have the expected layout. The message shows this layout, and
        a command that runs without this data.""",
    ),
    _code(
        "D41",
        "Invalid labels file",
        """A column is missing, a cell is empty, a split is not train, valid or test, a
        time is not a number, a line has too many cells or is a duplicate, or the file
        is not a comma-separated UTF-8 file. The message shows all lines. The columns
        are `file`, `label` or `score` and, optionally, `split`, `speaker`, `start` and
        `end`; others are ignored.""",
    ),
    _code(
        "D42",
        "Missing clips",
        """Files in the labels file do not exist or are outside of the folder of the
        clips; the message lists them. File names are relative to this folder and
        case-sensitive. `config.data.max_left_out` leaves such clips out, up to a
        fraction of all clips.""",
    ),
    _code(
        "D43",
        "Clips or examples failed",
        """None of the clips of a dataset could be decoded, or examples that should be
        predicted cannot be used. The message lists the reasons. The command `predict`
        predicts the other examples, and so does `errors="return"` in Python.""",
    ),
    _code(
        "D44",
        "Clips cannot be used",
        """More clips are absent or damaged than `config.data.max_left_out` allows, a
        fraction of all clips; the message lists them with the reasons. Fix or remove
        them, or leave them out with this option.""",
    ),
    _code(
        "D45",
        "Data cannot be split",
        """The train or test split is empty, a fold requires actors that are missing,
        there are fewer speakers than splits, or no video is marked for validation. For
        clips, the message offers only what has been tried on this labels file.""",
    ),
    _code(
        "D46",
        "Class missing from training",
        """A split contains a class without training examples, which a model could
        never predict. Move some of its clips to the training split, or remove the
        class; the message names what works for this labels file.""",
    ),
    _code(
        "D47",
        "Equal clips differ",
        """Rows of the labels file have files with the same content, and the same start
        and end, but another label, score or split. A clip with two labels cannot be
        learned, and one in two splits is data leakage. So are segments of a file that
        overlap and are in two splits, whoever speaks in them. Remove one row of each
        pair, or accept them with `config.data.equal_clips`.""",
    ),
    _code(
        "D48",
        "Labels file not written",
        """`data init` writes a labels.csv for the media files of a folder. There are
        none, or the folder has a labels.csv, which is never overwritten.""",
    ),
    _code(
        "D51",
        "Missing face landmarks",
        """Some clips have no file of face landmarks, or such a file cannot be read.
        The files are in `FacialTracking_Actors_01-24.zip` on the page of RAVDESS. If
        `config.data.landmarks_dir` is empty, the center square of each frame is used
        instead.""",
    ),
    _code(
        "D52",
        "Corrupted data file",
        """A data file is corrupted, its arrays have unexpected shapes or values, or
        two files do not match each other. Copy or download them again. An npz file
        that requires pickle, is encrypted, is not written by `np.savez` or
        `np.savez_compressed`, has more than 10,000 arrays or would unpack to more than
        200 times its size is rejected.""",
    ),
    _code(
        "D60",
        "Corrupted pickle",
        """A pickle is corrupted or truncated, has trailing data, or is not a pickle.
        Copy or download it again. If the message mentions an encoding, the file is
        from Python 2: read it with `encoding="utf-8"` or `"bytes"`.""",
    ),
    _code(
        "D61",
        "Pickle contains program objects",
        """A pickle contains objects other than plain data; the message shows their
        name. Loading such objects can run code, so all of them are rejected. Save the
        arrays as npz on the machine where the file was made. For PyTorch tensors, load
        the file with `torch.load(weights_only=True)` and save the arrays as npz; for
        pandas tables, save their columns as npz.""",
    ),
    _code(
        "D62",
        "Unsupported pickle opcode",
        """A pickle contains opcodes that plain data does not need: they create program
        objects, or refer to something outside the file. Save its arrays as npz on the
        machine where the file was made.""",
    ),
    _code(
        "D63",
        "Invalid object in a pickle",
        """The shape, dtype and bytes of an array do not match, or its dtype is not
        supported: structured arrays, dates, and numbers of more than 8 bytes (16 if
        complex). Or an object is created from invalid arguments. Download the file
        again, or save the array as npz with a plain dtype.""",
    ),
    _code(
        "D64",
        "Unsupported structure of a pickle",
        """A pickle contains itself, is nested too deeply or reuses the same objects
        too often, or a key of a dict is not a string, a number or a short tuple of
        these. Or a dict or set has more than 131,072 keys that are not strings, or
        keys that were chosen to have the same hash. Data files do not need any of
        this.""",
    ),
    _code(
        "D65",
        "Memory limit exceeded",
        """An import exceeded its memory limit, because the file is very large or was
        made to do this. If you trust the file, raise `--max_memory_gb`.""",
    ),
    _code(
        "D66",
        "Time limit exceeded",
        """An import exceeded its time limit. If you trust the file, raise
        `--max_cpu_seconds` (CPU time) or `--timeout` (wall-clock time), whichever the
        message names. A file of ordinary size that takes this long was probably made
        to do this.""",
    ),
    _code(
        "D67",
        "Import process crashed",
        """The process that imports a file crashed or was killed. The file is corrupted
        or was made to do this, or the machine is out of memory. Nothing was
        imported.""",
    ),
    _code(
        "D68",
        "File size limit exceeded",
        """An import wrote a file above the limit. If you trust the file, raise
        `--max_memory_gb`, which also limits the size of files.""",
    ),
    _code(
        "D70",
        "Unsupported feature file",
        """A feature file has none of the supported layouts or another format, such as
        an archive or an HTML page instead of a download. The message names it or lists
        its content. [formats.md](formats.md) describes the layouts, one of which is a
        plain npz, and shows how to convert files of other layouts and formats.""",
    ),
    _code(
        "D71",
        "Inconsistent feature file",
        """An entry of a feature file does not match the others: its number of rows is
        not the number of labels, lengths exceed the arrays, or splits have different
        features. The file is corrupted, or was merged from different files. Nothing
        was imported.""",
    ),
    _code(
        "D72",
        "NaN or infinite features",
        """A feature file contains NaN or infinite values; the message shows how many.
        Published files contain them, most often in audio, and published code replaces
        them with 0 while loading. `--nan_to_zero` replaces them once, and writes their
        number to the manifest, which all results show.""",
    ),
    _code(
        "D73",
        "Clip or video in two splits",
        """A clip or a video of a feature file is in two splits, or two clips in
        different splits, also train and valid, have equal features in all modalities
        (data leakage). Use the splits as published. `data import --drop_bad` leaves out
        copies of examples that are in a later split too; `--equal_clips` accepts them,
        as `--config.data.equal_clips=True` must in a training. A video is recognized
        from ids such as `abc$_$3`, `abc[3]`, `abc/3` and, if all ids of the file have
        the form, `abc_3`; where ids do not name videos, `data import` and `data check`
        print that this was not checked.""",
    ),
    _code(
        "D74",
        "File of another dataset",
        """A file is not from the dataset in `--dataset`: its checksum is that of
        another one, or it has other labels, or labels out of range. Nothing was
        imported.""",
    ),
    _code(
        "D75",
        "Dataset has not been imported",
        """No file of this dataset has been imported. The message lists the files,
        where to get them and the command that imports them. The library does not
        download them, because you accept the terms of use where you download them.""",
    ),
    _code(
        "D76",
        "Ambiguous file name",
        """Several files of a dataset have been imported and `config.data.file` (or
        `--file`) is not set, or it matches none or several of them. The message lists
        them with their files and dates. The first letters of a name are enough, or the
        name of the file that was imported.""",
    ),
    _code(
        "D77",
        "Missing text features",
        """The imported file does not have the text features in `config.data.text`. The
        message lists those it has: `vectors` (word embeddings), `bert` (token ids of
        BERT) or `words` (token ids of words). The text encoder must accept them.""",
    ),
    _code(
        "D78",
        "Incomplete files for AV-MNIST",
        """A split has no recording of a digit, or no noise clip. Recordings 0 to 4 of
        each speaker and digit are for the test split, 45 to 49 for validation, and the
        others for training; with `config.data.held_out_speaker`, all recordings of
        this speaker are for the test split. Noise clips of fold 5 are for the test
        split, all others for training and validation.""",
    ),
    _code(
        "D79",
        "Examples that cannot be used",
        """Examples of a feature file have a score that is NaN or out of the range of
        the dataset, or training examples have no step in any modality. The message
        lists all of them. `--drop_bad` leaves them out and writes them to the manifest;
        it also leaves out the copies of examples that have equal features in another
        split (D73). Nothing was imported.""",
    ),
    _code(
        "E01",
        "Missing optional library",
        """An optional library is not installed. The message shows its name, what
        requires it and the command that installs it. The first run on the embedded
        `digits` dataset requires the extra `demo`; later runs read the cache and do
        not.""",
    ),
    _code(
        "E02",
        "eSpeak NG failed",
        """eSpeak NG, which synthesizes the speech of the embedded `digits` dataset in
        a separate process, failed, crashed or timed out. The message shows its last
        output. Reinstall `espeakng-loader`; it requires processes that can fork, so
        Linux or macOS. A cache folder from another machine can be copied instead.""",
    ),
    _code(
        "E03",
        "Operating system error",
        """The operating system could not read or write a file: the disk is full, or
        the folder is not writable. The message shows its error, the path and a
        fix.""",
    ),
    _code(
        "E04",
        "Accelerator is not used",
        """The machine has a TPU or an NVIDIA GPU that JAX does not use, or JAX does
        not start. The message shows how the accelerator was detected and which
        versions are installed. JAX falls back to the CPU if the plugin of the
        accelerator (`libtpu`, `jax-cuda12-plugin`, `jax-cuda13-plugin`) is missing or
        does not match the installed `jaxlib`; the extras `tpu`, `cuda12` and `cuda13`
        install the matching version. CUDA 13 requires driver 580 or later; `cuda12`
        works with older drivers. Restart Python (on Colab, the runtime) after
        installing. `JAX_PLATFORMS=cpu` selects the CPU, which is then not an error.""",
    ),
    _code(
        "E05",
        "Not enough memory",
        """The accelerator or the machine does not have enough memory. Use a smaller
        `--config.data.batch_size`, or `--config.optim.gradient_accumulation_steps=2`,
        which computes the gradient of a batch in parts, or a smaller model.
        `--mode=inspect --compile` shows the memory of a training step before
        training.""",
    ),
    _code(
        "E06",
        "Workdir cannot be used",
        """`--workdir` is not a folder that can be written to: it or a parent of it is a
        file, a device or a broken link, its name is too long, or the file system is
        read-only. The message shows the path and the problem. Nothing was
        changed.""",
    ),
    _code(
        "E07",
        "Accelerator is in use",
        """Another process holds the TPU: only one process can use it at a time. The
        message shows the process, if it can be found: often a second notebook, or a
        run in the background. End it, or set `JAX_PLATFORMS=cpu` to use the CPU. The
        lock of libtpu ends with its process, but a lock file of another user cannot be
        opened: the message then names the file; delete it if no process uses the
        TPU.""",
    ),
    _code(
        "E08",
        "Self-test failed",
        """`python -m mmfusion_jax doctor` trains a tiny model in the temporary folder,
        kills the training by SIGKILL and resumes it. It must end with exactly the
        arrays of a training that was not killed. The message shows what failed and the
        last line of the process. Free disk space, or set `TMPDIR` to a local disk; if
        the arrays differ, please report it with the versions that the command
        prints.""",
    ),
    _code(
        "E09",
        "Port is in use",
        """The port of `demo`, and the following ones, are used by other programs of
        this machine, perhaps by other demos. End one of them, or choose another port
        with `--port`.""",
    ),
    _code(
        "E10",
        "Output folder cannot be used",
        """The folder of `--out` is not empty, is not a folder, or cannot be written:
        the disk is full, or a parent of it is not writable. Nothing was written: a
        folder is complete, or does not exist.""",
    ),
    _code(
        "K01",
        "No usable checkpoint",
        """The workdir has no checkpoints, or all of them are corrupted, or its training
        is not finished, or has no stored predictions to compare. Corrupted
        checkpoints are moved to the subfolder `corrupted/`, and `run.log` lists what is
        wrong with them. A run without a usable checkpoint does not restart from step 0
        unasked: choose another `--workdir`, or delete the folder. `saved.json` shows
        that a run had checkpoints. Or the checkpoint is of another step than the
        result: a result is valid for its own checkpoint only.""",
    ),
    _code(
        "K02",
        "Checkpoint does not match the model",
        """The checkpoints do not match the model: the message lists the arrays that
        differ, with their dtype and shape in both. Nothing was changed. Choose another
        `--workdir`, or use the config that wrote the checkpoints.""",
    ),
    _code(
        "K03",
        "Checkpoint could not be saved",
        """The state could not be saved, not even at the second attempt, and the run
        could not continue without saving it. Earlier checkpoints are intact. Free disk
        space or fix the disk, then rerun the same command to resume. Or the training
        is complete, but the step that its result is of is not on disk: without it,
        the result could not be reproduced, and is not written.""",
    ),
    _code(
        "K04",
        "Checkpoint folder is not usable",
        """The folder for checkpoints cannot be created, read or written.""",
    ),
    _code(
        "K05",
        "File of a run is corrupted",
        """`config.json`, `run.json`, `predictions.json`, `result.json` or
        `metrics.jsonl` in the workdir cannot be read, is not complete JSON, lacks a
        field, or has values that do not fit together. Checkpoints are separate files
        and are not affected. Delete the file that the message names and rerun the same
        command: finished runs and checkpoints are kept.""",
    ),
    _code(
        "K06",
        "File of a run has another format",
        """Another version of the library wrote `config.json`, `run.json`,
        `predictions.json`, `result.json` or `metrics.jsonl` in the workdir, and fields
        may have changed their names or meanings. Nothing was changed. Use the version
        of the library that wrote the workdir (`result.json` has it in `versions`), or
        another `--workdir`.""",
    ),
    _code(
        "K07",
        "Other data than those of the run",
        """The data are not those that the run was trained on: examples were added,
        removed or moved to another split, a label or a class has changed, files have
        another content, or the statistics that inputs are standardized with are
        others. The message lists what differs. The path does not matter. Nothing was
        changed. A result must be of one set of data: restore the old data, or train on
        the new ones with another `--workdir`.""",
    ),
    _code(
        "K08",
        "Workdir is in use",
        """Another process is training in the workdir; the message shows its process id,
        its machine and since when. Two of them would delete each other's checkpoints.
        The lock is that of the file `.lock`, and ends with the process, however that
        ends: a file that is left over does not lock anything. Reading, such as with
        `--mode=evaluate`, does not require it.""",
    ),
    _code(
        "K09",
        "No trained run",
        """The folder does not contain a run that can make predictions: nothing was
        trained in it, its `predictor.json` or `config.json` is missing, or an older
        version of the library wrote it. Specify the workdir of a training, or the
        folder of one of its runs.""",
    ),
    _code(
        "K10",
        "Exported model is corrupted",
        """A file of an exported folder is missing, cannot be read, or differs from what
        was exported: `model.safetensors` has the SHA-256 of every array, and of
        `config.json`, `predictor.json`, `calibration.json`, `export.json` and the
        programs. Or the arrays do not match the model of the config. The message shows
        the file and the array. Copy the folder again, or export the run again.""",
    ),
    _code(
        "K11",
        "Process did not reach a save",
        """A run of several processes saves in all of them together. One is still alive
        and did not come within `config.distributed.save_timeout` seconds: it waits for
        data, or its machine is overloaded. The checkpoints before are intact, and the
        same command in all processes resumes from the newest.""",
    ),
    _code(
        "N01",
        "Training diverged",
        """Consecutive steps had a non-finite loss or gradient. The lines before the
        message show the loss term, the part of the model and the modality. Updates of
        these steps and of later ones were skipped, and the weights before them are
        saved; the same command with the same work folder ends at the same step again.
        Use another folder and lower `--config.optim.learning_rate`, set
        `--config.optim.clip_norm=1.0`, or look for NaN in the data;
        `--config.train.max_nonfinite_steps` is the number of such steps that ends a
        run.""",
    ),
    _code(
        "N02",
        "Prediction is not finite",
        """After training, a prediction is not finite. The message shows the split and
        the indices of the first such examples. Every metric of this split is then "not
        defined" on the screen, in `report.html` and in `result.json` (null): metrics
        of the other examples would be metrics of other data, and a threshold or argmax
        would treat NaN as a class. The report is written and checkpoints are kept.
        Look for very large values in these examples, or train with
        `--config.optim.clip_norm=1.0` or a lower `--config.optim.learning_rate`.""",
    ),
    _code(
        "W01",
        "Weights file not found",
        """A file of pretrained weights does not exist or cannot be opened, or is not a
        regular file but a folder, FIFO, socket or device. The message shows a command
        that writes such a file if the `transformers` library is installed. A missing
        file never leads to random initialization; where a config requires one, the
        value `random` asks for random weights.""",
    ),
    _code(
        "W02",
        "Unsupported weights file",
        """A file of pretrained weights cannot be read. It must be a safetensors file,
        or a state dict saved by `torch.save` of PyTorch 1.6 or later. No code in a
        file is run: a file that contains an entire model, or anything but named
        tensors, is rejected. So is a file whose tensors are larger than their
        storages, such as those of `expand`: save `tensor.contiguous()`.""",
    ),
    _code(
        "W03",
        "Missing array in the weights",
        """A file of pretrained weights lacks an array that the encoder requires. The
        message shows its name in the file and in the encoder. Usually the encoder has
        more layers than the weights, or the file is for another architecture.""",
    ),
    _code(
        "W04",
        "Weights have another shape",
        """An array in a file of pretrained weights has another shape than in the
        encoder. Set the sizes of the encoder, such as `hidden_dim`, `num_heads` and
        `vocab_size`, to those of the weights.""",
    ),
)
ERROR_CODES: dict[str, ErrorCode] = {one.code: one for one in _CODES}
"""Code -> its description, ordered by code."""


def markdown() -> str:
    """Returns the text of docs/errors.md."""
    rows = ["| letter | kind | exit code |", "| --- | --- | --- |"]
    for kind in ERROR_KINDS.values():
        rows.append(f"| {kind.letter} | {kind.title} | {kind.error.exit_code} |")
    sections = [
        f"## {one.code}: {one.title}\n\n{_wrapped(one.explanation)}\n"
        for one in ERROR_CODES.values()
    ]
    return "\n".join([INTRODUCTION, "\n".join([*rows, ""]), EXIT_CODES, *sections])


def _wrapped(text: str) -> str:
    """Returns a paragraph as lines that break at spaces only."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    print(markdown(), end="")
