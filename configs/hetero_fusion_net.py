"""Hetero-Fusion-Net; the paper reports 91.67 % and an MIS of .8891, of no named data.

    python -m mmfusion_jax.main --config=configs/hetero_fusion_net.py  # embedded digits
    python -m mmfusion_jax.main --config=configs/hetero_fusion_net.py:av_mnist
    python -m mmfusion_jax.main --config=configs/hetero_fusion_net.py:mosei
    python -m mmfusion_jax.main --config=configs/hetero_fusion_net.py:iemocap  # flags
    python -m mmfusion_jax.main --config=configs/hetero_fusion_net.py:iemocap_emotion
    python -m mmfusion_jax.main --config=configs/hetero_fusion_net.py:clips
    python -m mmfusion_jax.main --config=configs/hetero_fusion_net.py:raw_clips
    python -m mmfusion_jax.main --config=configs/hetero_fusion_net.py:raw_clips_small

raw_clips has the paper's extractors, BERT, ResNet-50, Wav2Vec 2.0 and 3D ResNet-18, on
the transcripts (column text of labels.csv), key frames, waveforms and frames of clips:

    --config.model.encoders.text.weights=bert/model.safetensors  # beside its vocab.txt
    --config.model.encoders.image.weights=resnet50.pt
    --config.model.encoders.audio.weights=wav2vec2/model.safetensors
    --config.model.encoders.video.weights=r3d_18.pt

All four are required; --config.model.encoders.X.weights=random asks for random weights.
--config.optim.groups.extractors.frozen=True does not train them. raw_clips_small has
small extractors with random weights, and requires --config.data.vocabulary=vocab.txt.

Training drops modalities with --config.data.modality_dropout.audio=0.3 and the like;
`config.data.augmentations` augments images, audio and words (Sec. 5.2), each modality
by an augmentation of mmfusion_jax/data/augment/registry.py. Sec. 4.2 has two forms of
MIS: --config.mis.consistency=soft, --config.mis.confidence=entropy. The entropy term as
printed (Eq. 5) is --config.losses.entropy.form=paper, the gate as printed (Eq. 3)
--config.model.gate_hidden_dim=0. The loss as printed (Eq. 10) does not have the term
`heads`: --config.losses.heads.weight=0. Precision, recall and F1 are also reported over
all classes, also those that do not occur, as Eq. 19-23 print them.

A word with _early or _late after it, such as digits_late, trains a baseline of Sec. 5.3
in the same way; with a modality after it, such as av_mnist_audio, that modality alone.
Values are those of Sec. 5.2; "ours" marks what the paper does not give.
"""

from collections.abc import Iterable

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from mmfusion_jax.config.base import base_config


def get_config(data: str = "digits") -> ConfigDict:
    config = base_config()
    config.model = dict(
        name="hetero_fusion_net",
        hidden_dim=512,
        num_heads=8,
        include_self=True,  # ours
        residual=False,
        gate="sigmoid",
        gate_hidden_dim=256,  # Eq. 3 has no hidden layer
        latent_dim=256,
        detach_unimodal_heads=False,  # ours
        dropout=0.3,
        audio_pooling="mean",  # ours
    )
    config.optim.learning_rate = 1e-4
    config.optim.reduce_on_plateau = dict(factor=0.5, patience=5, monitor="loss")
    config.train.update(dict(epochs=100, selection_metric="mis"))
    config.train.patience = 10  # ours
    config.mis = dict(weights=(0.3, 0.3, 0.4), consistency="hard", confidence="margin")

    variants = dict(
        digits=_digits,
        av_mnist=_av_mnist,
        mosei=_mosei,
        iemocap_emotion=_iemocap_emotion,  # before the word that it begins with
        iemocap=_iemocap,
        clips=_clips,
        raw_clips_small=_raw_clips_small,
        raw_clips=_raw_clips,
    )
    # The first variant that `data` is, or begins with before a "_".
    name = next((v for v in variants if f"{data}_".startswith(f"{v}_")), "")
    if not name:
        raise _unknown(data, variants)
    config.data.update(dict(name=name, label="label"))
    if name.startswith("raw_clips"):  # Eq. 19-23, over all classes
        averages = ("precision", "recall", "f1")
        names = [f"macro_{average}_all_classes" for average in averages]
        config.metrics = {name: dict(name=name) for name in names}
    variants[name](config)
    modalities = tuple(sorted(config.model.encoders))
    _losses(config, modalities)
    rest = data.removeprefix(name)
    if rest == "_early":
        _early(config)
    elif rest == "_late":
        _late(config)
    elif rest[1:] in modalities:
        _alone(config, rest[1:])
    elif rest:
        raise _unknown(data, variants)
    return config


def _unknown(data: str, variants: Iterable[str]) -> ValueError:
    return ValueError(
        f"data={data!r}; hetero_fusion_net knows {', '.join(sorted(variants))}, and "
        "each of them with _early, _late, or _ and a modality of its after it."
    )


def _losses(config: ConfigDict, modalities: tuple[str, ...]) -> None:
    """Sets the losses of Eq. 10, and those of the unimodal heads."""
    kind = "multilabel" if config.data.label == "emotions" else "cross_entropy"
    config.losses = dict(
        task=dict(name=kind, weight=1.0),
        heads=dict(
            name="unimodal_losses",
            weight=1.0,  # ours
            modalities=modalities,
            kind=kind,
        ),
        entropy=dict(
            name="gate_entropy",
            weight=0.01,
            form="normalized",  # ours; Eq. 5 has the other sign, see `GateEntropy`
        ),
        consistency=dict(
            name="consistency",  # ours: the paper names the term only
            weight=0.1,
            modalities=modalities,
            flags=kind == "multilabel",
        ),
    )


def _early(config: ConfigDict) -> None:
    """Sets concatenated features and three hidden layers; MIS is not defined."""
    width = config.model.hidden_dim
    config.model = dict(
        name="concat_fc",
        encoders=config.model.encoders,
        projection_dim=width,
        hidden_dims=(2 * width, width, width // 2),
        dropout=0.0,
        hidden_dropout=config.model.dropout,
        audio_pooling=config.model.audio_pooling,
    )
    _one_prediction(config)


def _alone(config: ConfigDict, modality: str) -> None:
    """Sets one encoder and a linear layer."""
    config.model = dict(
        name="unimodal",
        modality=modality,
        encoders={modality: config.model.encoders[modality]},
        dropout=0.0,
        audio_pooling=config.model.audio_pooling,
    )
    if "modalities" in config.data and modality != "text":
        config.data.modalities = (modality,)
    changes = config.data.get("augmentations", {})
    for other in set(changes) - {modality}:
        del changes[other]
    _one_prediction(config)


def _one_prediction(config: ConfigDict) -> None:
    """Removes the terms that compare predictions of several modalities."""
    for term in ("heads", "entropy", "consistency"):
        del config.losses[term]
    if "mis" in config:
        del config.mis
        config.train.selection_metric = "accuracy"


def _late(config: ConfigDict) -> None:
    """Sets a network for each modality, and a learned average of the predictions."""
    width = config.model.hidden_dim
    config.model = dict(
        name="late_fusion",
        encoders=config.model.encoders,
        rule="learned",
        projection_dim=width,
        hidden_dims=(width, width // 2),
        dropout=0.0,
        hidden_dropout=config.model.dropout,
        audio_pooling=config.model.audio_pooling,
    )
    for term in ("entropy", "consistency"):
        del config.losses[term]


def _narrow(config: ConfigDict) -> None:
    """Sets a small network for little data and a CPU; all values ours."""
    config.model.update(
        dict(hidden_dim=64, num_heads=4, gate_hidden_dim=32, latent_dim=32)
    )
    config.optim.learning_rate = 2e-3


def _digits(config: ConfigDict) -> None:
    _narrow(config)
    config.data.update(dict(label="digit", missing_rate=0.0, cache_dir=""))
    config.model.encoders = dict(
        audio=dict(name="audio_cnn", hidden_dim=32),
        image=dict(name="precomputed"),
        text=dict(name="conv_lstm", hidden_dim=32, vocab_size=64),
        video=dict(name="resnext_3d", blocks=(1, 1), base_channels=8),
    )
    config.model.audio_pooling = "flatten"
    config.train.update(dict(epochs=12, patience=0))


def _av_mnist(config: ConfigDict) -> None:
    # The encoders that all AV-MNIST configs share; neither augmentation nor dropout: a
    # small network sees 55,000 noisy pairs a few times. All values ours.
    _narrow(config)
    config.model.dropout = 0.0
    config.data.update(dict(label="digit", data_dir="", snr_db=-12.0))
    config.data.update(
        dict(held_out_speaker="", max_train_pairs=0, cache_in_memory=False)
    )
    config.model.encoders = dict(
        audio=dict(name="image_cnn", channels=(8, 16, 32, 64), downsample=2),
        image=dict(name="image_cnn", channels=(16, 32, 64)),
    )
    config.model.audio_pooling = "flatten"  # which pitch, and when
    config.optim.schedule = dict(name="cosine")
    config.train.update(dict(epochs=20, patience=0))


def _mosei(config: ConfigDict) -> None:
    # Precomputed features of the commonly used files, averaged over time.
    config.data.update(dict(label="polarity", file="", text="vectors", standardize=()))
    config.model.encoders = {
        m: dict(name="precomputed") for m in ("audio", "text", "video")
    }


def _iemocap(config: ConfigDict) -> None:
    # Four flags are not classes: MIS is not defined.
    config.data.update(dict(label="emotions", file="", text="vectors", standardize=()))
    config.model.encoders = {
        m: dict(name="precomputed") for m in ("audio", "text", "video")
    }
    del config.mis
    config.train.selection_metric = "f1"


def _iemocap_emotion(config: ConfigDict) -> None:
    # The one emotion that is present, with MIS.
    _mosei(config)
    config.data.update(dict(name="iemocap", label="emotion"))


def _clips(config: ConfigDict) -> None:
    _narrow(config)
    config.data.update(
        dict(
            data_dir="",
            labels="",
            classes=(),  # names of all classes; (): those that occur
            frames=30,
            size=112,
            resize_mode="center_crop",
            crop_box=(0.0, 0.0, 1.0, 1.0),  # left, top, right, bottom
            rgb=True,
            sample_rate=22050,
            duration=placeholder(float),
            noise_snr_db=placeholder(float),
            augment=False,
            max_left_out=0.0,
        )
    )
    config.model.encoders = dict(
        audio=dict(name="audio_cnn"),
        video=dict(name="resnext_3d", blocks=(1, 1, 1), base_channels=16),
    )
    config.data.augmentations = dict(
        audio=dict(
            name="spectrogram", semitones=0.0
        ),  # MFCC do not have a pitch to shift
        video=dict(name="image"),
    )
    config.train.epochs = 30


def _raw_clips(config: ConfigDict) -> None:
    """Sets the extractors of Sec. 5.2 on four raw modalities."""
    config.data.update(
        dict(
            name="clips",
            data_dir="",
            labels="",
            classes=(),  # names of all classes; (): those that occur
            modalities=("audio", "image", "text", "video"),
            # The input of the pretrained weights: 16 frames of 112 x 112, an image of
            # 224 x 224, samples at 16 kHz, lower-case text.
            frames=16,
            size=112,
            image_size=224,
            resize_mode="center_crop",
            crop_box=(0.0, 0.0, 1.0, 1.0),  # left, top, right, bottom
            audio_features="waveform",
            sample_rate=16000,
            duration=placeholder(float),
            noise_snr_db=placeholder(float),
            text_column="text",
            lowercase=True,
            max_tokens=64,  # ours
            max_left_out=0.0,
        )
    )
    required = dict(weights="required", freeze_batch_norm=True)
    config.model.encoders = dict(
        audio=dict(name="wav2vec2", weights="required"),
        image=dict(name="resnet", pooled=True, **required),
        text=dict(name="bert", weights="required"),
        video=dict(name="r3d", pooled=True, **required),
    )
    # The vocabulary is beside the weights, unless a flag names another.
    config.data.vocabulary = config.model.encoders.text.get_oneway_ref("weights")
    _augment_raw_clips(config)
    # Whether the paper trains its extractors is not stated.
    config.optim.groups.extractors = dict(
        param_prefix="encoders_",
        learning_rate=1e-5,  # ours
        frozen=False,
    )


def _augment_raw_clips(config: ConfigDict) -> None:
    """Sets the augmentation of Sec. 5.2; its ranges, and that of video, are ours."""
    config.data.augmentations = dict(
        audio=dict(name="waveform", sample_rate=16000),
        image=dict(name="image"),
        text=dict(
            name="words",
            delete_prob=0.1,
            replace_prob=0.1,
            synonyms="",  # "": the list of the library
            vocabulary=config.data.get_oneway_ref("vocabulary"),
        ),
        video=dict(name="image"),
    )


def _raw_clips_small(config: ConfigDict) -> None:
    """Sets small extractors of the same kinds, with random weights; values ours."""
    _narrow(config)
    _raw_clips(config)
    config.data.update(dict(size=56, image_size=64, vocabulary="required"))
    stages = dict(blocks=(1, 1, 1), pooled=True, weights="random")
    layers = dict(hidden_dim=64, num_layers=2, num_heads=4, mlp_dim=128)
    config.model.encoders = dict(
        audio=dict(
            name="wav2vec2",
            channels=32,
            pos_conv_kernel=16,
            pos_conv_groups=4,
            weights="random",
            **layers,
        ),
        image=dict(name="resnet", kind="basic", base_channels=16, **stages),
        text=dict(name="bert", weights="random", **layers),
        video=dict(name="r3d", base_channels=8, **stages),
    )
    _augment_raw_clips(config)
    config.optim.groups = ConfigDict()
    config.train.epochs = 30
