"""CFN-SR; the paper reports 75.76 % on RAVDESS with 26.30 M parameters.

    python -m mmfusion_jax.main --config=configs/cfn_sr.py            # embedded digits
    python -m mmfusion_jax.main --config=configs/cfn_sr.py:ravdess    # the paper
    python -m mmfusion_jax.main --config=configs/cfn_sr.py:ravdess_official  # its code
    python -m mmfusion_jax.main --config=configs/cfn_sr.py:clips      # your own clips
    python -m mmfusion_jax.main --config=configs/cfn_sr.py:ravdess_features
    python -m mmfusion_jax.main --config=configs/cfn_sr.py:av_mnist

Values are those of Sec. 3.2; "code" marks what only the released code tells.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(data: str = "digits") -> ConfigDict:
    config = ConfigDict()
    config.seed = 1234  # code
    config.seeds = 1
    config.protocol = "honest"
    config.parallel = "jit"
    config.compute_dtype = "float32"
    config.data = dict(name=data, label="emotion", fold="0", folds=1)
    config.data.batch_size = 16  # code
    config.data.threads = 2
    config.model = dict(
        name="cfn_sr",
        encoders=dict(
            audio=dict(name="audio_conv"),
            video=dict(name="resnext_3d"),
        ),
        width=64,  # code
        depth=5,  # code
        heads=8,  # code
        cross="audio_to_video",
        self_attention=True,
        residual=True,
        softmax_axes="HW",
        parity="paper",
        dropout=0.4,  # code
        audio_readout="flat",
    )
    config.losses = dict(task=dict(name="cross_entropy", weight=1.0))
    config.optim = dict(
        name="adam",
        learning_rate=1e-3,
        schedule=dict(name="constant"),
        clip_norm=0.0,
        weight_decay=0.0,
        accumulate=1,
    )
    config.train = dict(
        epochs=70,  # code
        select="accuracy",
        patience=0,
        log_every=20,
        save_every=0,
        max_bad_steps=3,
    )
    config.warm_start = ("audio", "video")  # code: encoders are trained alone first
    config.distributed = dict(coordinator="", num_processes=1, process_id=0)

    variants = dict(
        digits=_digits,
        ravdess=_ravdess,
        ravdess_features=_ravdess_features,
        ravdess_official=_ravdess_official,
        clips=_clips,
        av_mnist=_av_mnist,
    )
    if data not in variants:
        raise ValueError(f"data={data!r}; cfn_sr knows {', '.join(sorted(variants))}.")
    variants[data](config)
    return config


def _digits(config: ConfigDict) -> None:
    config.data.label = "digit"
    config.data.missing = 0.0
    config.data.folder = ""
    config.model.encoders.video = dict(name="resnext_3d", blocks=(1, 1), width=8)
    config.train.epochs = 8


def _ravdess(config: ConfigDict) -> None:
    config.data.update(
        dict(
            dir="",
            landmarks="",
            fold="all",
            folds=5,
            size=224,
            spacing="even",
            crop="full",
            pad_mode="reflect",
            augment=True,
            augment_per_frame=False,  # True: code
            strict=False,
        )
    )


def _ravdess_official(config: ConfigDict) -> None:
    # What the released code does where it departs from the paper.
    _ravdess(config)
    config.data.name = "ravdess"
    config.data.augment_per_frame = True
    config.model.parity = "official"
    config.model.encoders.video.update(dict(stem_relu=False, channel_order="bgr"))


def _ravdess_features(config: ConfigDict) -> None:
    # Chosen on validation actors, see experiments/ravdess_features.
    config.data.update(dict(dir="", fold="all", folds=5, batch_size=32, stride=4))
    config.data.augment = dict(
        warp=0.12,
        speed=0.15,
        shift=0.07,
        mask=0.13,
        noise=0.2,
        face_noise=0.3,
        face_scale=0.2,
    )
    config.model.encoders.audio.pool = 4
    # 35 action units, each calibrated in two ways, stand in for the clip.
    config.model.encoders.video = dict(name="feature_tokens", ways=2, dropout=0.5)
    config.model.update(
        dict(depth=1, heads=4, width=32, dropout=0.5, audio_readout="moments")
    )
    config.optim.update(dict(name="adamw", learning_rate=3e-3, weight_decay=0.05))
    config.optim.schedule = dict(name="cosine", warmup_steps=25)
    config.train.epochs = 20


def _clips(config: ConfigDict) -> None:
    config.data.update(
        dict(
            dir="",
            labels="",
            classes=(),  # names of all classes; (): those that occur
            label="label",
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
    # Narrow, for tens to thousands of clips and a CPU; the paper's network is
    # --config.model.encoders.video.blocks=3,4,6,3 and width=64.
    config.model.encoders.video = dict(name="resnext_3d", blocks=(1, 1, 1), width=16)
    config.train.epochs = 30


def _av_mnist(config: ConfigDict) -> None:
    # The block on the encoders that all AV-MNIST configs share, and no dropout; all
    # values ours but for the size of the block.
    config.seed = 0
    config.data.update(dict(label="digit", dir="", snr_db=-12.0, speaker=""))
    config.data.update(dict(batch_size=32, pairs=0, keep=False))
    config.model.encoders = dict(
        audio=dict(name="image_conv", channels=(8, 16, 32, 64), shrink=2),  # 9 tokens
        image=dict(name="image_conv", channels=(16, 32, 64)),  # 9 tokens
    )
    config.model.update(dict(dropout=0.0, embed_dropout=0.0, layer_dropout=0.0))
    config.model.watched = "image"
    config.model.causal = False  # places of a spectrogram, not steps in time
    config.optim.update(dict(learning_rate=2e-3, schedule=dict(name="cosine")))
    config.train.epochs = 20
    config.warm_start = ()  # all models of the table see the data equally often
