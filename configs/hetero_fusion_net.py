"""Hetero-Fusion-Net; the paper reports 91.67 % and an MIS of .8891, of no named data.

    python -m mmfusion_jax.main --config=configs/hetero_fusion_net.py  # embedded digits
    python -m mmfusion_jax.main --config=configs/hetero_fusion_net.py:av_mnist
    python -m mmfusion_jax.main --config=configs/hetero_fusion_net.py:mosei
    python -m mmfusion_jax.main --config=configs/hetero_fusion_net.py:iemocap
    python -m mmfusion_jax.main --config=configs/hetero_fusion_net.py:clips

Modalities are hidden in training with --config.data.modality_dropout.audio=0.3 and the
like; `config.data.augmentations` changes pictures, sound and words (Sec. 5.2), each
modality by one of mmfusion_jax/data/augment/registry.py. Sec. 4.2 has two forms of MIS:
--config.mis.consistency=soft, --config.mis.confidence=entropy. The entropy term as
printed (Eq. 5) is --config.losses.entropy.form=paper, the gate as printed (Eq. 3)
--config.model.gate_hidden=0.

A word with _early or _late after it, such as digits_late, is the same recipe with a
baseline of Sec. 5.3; with a modality after it, such as av_mnist_audio, with that
modality alone. Values are those of Sec. 5.2; "ours" marks what the paper does not
give.
"""

from collections.abc import Iterable

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(data: str = "digits") -> ConfigDict:
    config = ConfigDict()
    config.seed = 0  # ours
    config.seeds = 1
    config.protocol = "honest"
    config.parallel = "jit"
    config.compute_dtype = "float32"
    config.model = dict(
        name="hetero_fusion_net",
        width=512,
        heads=8,
        include_self=True,
        residual=False,
        gate="sigmoid",
        gate_hidden=256,
        latent=256,
        heads_detach=False,
        dropout=0.3,
        audio_readout="mean",
    )
    config.optim = dict(
        name="adam",
        learning_rate=1e-4,
        schedule=dict(name="constant"),
        clip_norm=0.0,
        weight_decay=0.0,
        l2=0.0,
        plateau=dict(factor=0.5, patience=5, watch="loss"),
        groups=dict(),
        accumulate=1,
    )
    config.train = dict(
        epochs=100,
        select="mis",
        patience=10,  # ours
        log_every=20,
        save_every=0,
        max_bad_steps=3,
    )
    config.mis = dict(weights=(0.3, 0.3, 0.4), consistency="hard", confidence="margin")
    config.warm_start = ()
    config.distributed = dict(coordinator="", num_processes=1, process_id=0)

    variants = dict(
        digits=_digits,
        av_mnist=_av_mnist,
        mosei=_mosei,
        iemocap=_iemocap,
        clips=_clips,
    )
    name = next((v for v in variants if f"{data}_".startswith(f"{v}_")), "")
    if not name:
        raise _unknown(data, variants)
    config.data = dict(name=name, label="label", fold="0", folds=1)
    config.data.batch_size = 32
    config.data.threads = 2
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
    """Eq. 10, and what teaches the heads of single modalities."""
    kind = "multilabel" if config.data.name == "iemocap" else "cross_entropy"
    config.losses = dict(
        task=dict(name=kind, weight=1.0),
        heads=dict(
            name="single_modalities",
            weight=1.0,  # ours
            modalities=modalities,
            kind=kind,
        ),
        entropy=dict(name="gate_entropy", weight=0.01, form="normalised"),
        consistency=dict(
            name="consistency",
            weight=0.1,
            modalities=modalities,
            flags=kind == "multilabel",
        ),
    )


def _early(config: ConfigDict) -> None:
    """Features side by side, and three hidden layers; it has no MIS."""
    width = config.model.width
    config.model = dict(
        name="concat_fc",
        encoders=config.model.encoders,
        aligned=width,
        hidden_dims=(2 * width, width, width // 2),
        dropout=0.0,
        hidden_dropout=config.model.dropout,
        audio_readout=config.model.audio_readout,
    )
    _one_prediction(config)


def _alone(config: ConfigDict, modality: str) -> None:
    """One encoder and a linear layer."""
    config.model = dict(
        name="unimodal",
        modality=modality,
        encoders={modality: config.model.encoders[modality]},
        dropout=0.0,
        audio_readout=config.model.audio_readout,
    )
    changes = config.data.get("augmentations", {})
    for other in set(changes) - {modality}:
        del changes[other]
    _one_prediction(config)


def _one_prediction(config: ConfigDict) -> None:
    """Without what compares predictions of several modalities."""
    for term in ("heads", "entropy", "consistency"):
        del config.losses[term]
    if "mis" in config:
        del config.mis
        config.train.select = "accuracy"


def _late(config: ConfigDict) -> None:
    """A network for each modality, and a learned average of what they say."""
    width = config.model.width
    config.model = dict(
        name="late_fusion",
        encoders=config.model.encoders,
        rule="learned",
        aligned=width,
        hidden_dims=(width, width // 2),
        dropout=0.0,
        hidden_dropout=config.model.dropout,
        audio_readout=config.model.audio_readout,
    )
    for term in ("entropy", "consistency"):
        del config.losses[term]


def _narrow(config: ConfigDict) -> None:
    """A small network for little data and a CPU; all values ours."""
    config.model.update(dict(width=64, heads=4, gate_hidden=32, latent=32))
    config.optim.learning_rate = 2e-3


def _digits(config: ConfigDict) -> None:
    _narrow(config)
    config.data.update(dict(label="digit", missing=0.0, folder=""))
    config.model.encoders = dict(
        audio=dict(name="audio_conv", width=32),
        image=dict(name="vectors"),
        text=dict(name="conv_lstm", width=32, vocabulary=64),
        video=dict(name="resnext_3d", blocks=(1, 1), width=8),
    )
    config.model.audio_readout = "flat"
    config.train.update(dict(epochs=12, patience=0))


def _av_mnist(config: ConfigDict) -> None:
    # The encoders that all AV-MNIST configs share; neither augmentation nor dropout: a
    # small network sees 55,000 noisy pairs a few times. All values ours.
    _narrow(config)
    config.model.dropout = 0.0
    config.data.update(dict(label="digit", dir="", snr_db=-12.0, speaker=""))
    config.data.update(dict(pairs=0, keep=False))
    config.model.encoders = dict(
        audio=dict(name="image_conv", channels=(8, 16, 32, 64), shrink=2),
        image=dict(name="image_conv", channels=(16, 32, 64)),
    )
    config.model.audio_readout = "flat"  # which pitch, and when
    config.optim.schedule = dict(name="cosine")
    config.train.update(dict(epochs=20, patience=0))


def _mosei(config: ConfigDict) -> None:
    # Frozen features of files as they are passed around, averaged over time.
    config.data.update(dict(label="polarity", file="", text="vectors", standardise=()))
    config.model.encoders = {
        m: dict(name="vectors") for m in ("audio", "text", "video")
    }


def _iemocap(config: ConfigDict) -> None:
    # Four flags are no classes: there is no MIS of them.
    config.data.update(dict(label="emotions", file="", text="vectors", standardise=()))
    config.model.encoders = {
        m: dict(name="vectors") for m in ("audio", "text", "video")
    }
    del config.mis
    config.train.select = "f1"


def _clips(config: ConfigDict) -> None:
    _narrow(config)
    config.data.update(
        dict(
            dir="",
            labels="",
            classes=(),  # names of all classes; (): those that occur
            frames=30,
            size=112,
            fit="crop",
            region=(0.0, 0.0, 1.0, 1.0),  # left, top, right, bottom
            colour=True,
            sample_rate=22050,
            duration=placeholder(float),
            noise_snr_db=placeholder(float),
            augment=False,
            strict=False,
        )
    )
    config.model.encoders = dict(
        audio=dict(name="audio_conv"),
        video=dict(name="resnext_3d", blocks=(1, 1, 1), width=16),
    )
    config.data.augmentations = dict(
        audio=dict(name="spectrogram", semitones=0.0),  # MFCC have no pitch to move
        video=dict(name="image"),
    )
    config.train.epochs = 30
