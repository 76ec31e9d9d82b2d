"""CFN-SR; the paper reports 75.76 % on RAVDESS with 26.30 M parameters.

    python -m mmfusion_jax.main --config=configs/cfn_sr.py            # embedded digits
    python -m mmfusion_jax.main --config=configs/cfn_sr.py:ravdess    # the paper
    python -m mmfusion_jax.main --config=configs/cfn_sr.py:ravdess_released_code
    python -m mmfusion_jax.main --config=configs/cfn_sr.py:clips      # your own clips
    python -m mmfusion_jax.main --config=configs/cfn_sr.py:ravdess_features
    python -m mmfusion_jax.main --config=configs/cfn_sr.py:av_mnist

The other rows of Table 1 are words too, digits or ravdess followed by _averaging,
_multiplication, _multiplicative, _concat_fc, _mcbp, _mmtm or _msaf, such as
ravdess_mmtm. Each trains the unimodal networks alone first, which are the rows "Vid."
and "Aud."; _averaging and _multiplication combine these without further training, the
others then train the fused model for the same number of epochs.

Values are those of Sec. 3.2; "code" marks those of the released code.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from mmfusion_jax.config.base import base_config


def get_config(data: str = "digits") -> ConfigDict:
    config = base_config()
    # Also from the code: softmax_axes, and for RAVDESS pad_mode and frame_sampling;
    # Sec. 3.2 has consecutive frames.
    config.seed = 1234  # code
    config.data.update(dict(name=data, label="emotion"))
    config.data.batch_size = 16  # code
    config.model = dict(
        name="cfn_sr",
        encoders=dict(
            audio=dict(name="audio_cnn"),
            video=dict(name="resnext_3d"),
        ),
        hidden_dim=64,  # code
        num_layers=5,  # code
        num_heads=8,  # code
        causal=True,  # code
        pre_norm=True,  # code; False: Eq. 6
        embed_dropout=0.3,  # code
        layer_dropout=0.1,  # code
        cross="audio_to_video",
        self_attention=True,
        residual=True,
        softmax_axes="HW",
        attention_scale=1.0,  # Eq. 8; 16.0: strength of the code
        variant="paper",
        dropout=0.4,  # code
        audio_pooling="flatten",
    )
    config.losses = dict(task=dict(name="cross_entropy", weight=1.0))
    config.train.epochs = 70  # code
    config.pretrain_unimodal = ("audio", "video")  # code

    variants = dict(
        digits=_digits,
        ravdess=_ravdess,
        ravdess_features=_ravdess_features,
        ravdess_released_code=_ravdess_released_code,
        clips=_clips,
        av_mnist=_av_mnist,
    )
    # Only words of the table: ravdess_features is another dataset.
    name, _, row = data.partition("_")
    if name not in ("digits", "ravdess") or row not in TABLE_1:
        name, row = data, ""
    if name not in variants:
        raise ValueError(
            f"data={data!r}; cfn_sr knows {', '.join(sorted(variants))}, and each of "
            f"digits and ravdess with one of _{', _'.join(TABLE_1)} after it."
        )
    config.data.name = name
    variants[name](config)
    if row:
        _row_of_table_1(config, row)
    return config


TABLE_1 = dict(
    averaging=dict(name="late_fusion", rule="average"),
    multiplication=dict(name="late_fusion", rule="product"),
    multiplicative=dict(name="late_fusion", rule="multiplicative", beta=0.3),  # Table 1
    concat_fc=dict(name="concat_fc", hidden_dims=(256,), hidden_dropout=0.4),  # ours
    mcbp=dict(name="mcbp", sketch_dim=8000, hidden_dim=512, hidden_dropout=0.4),  # ours
    mmtm=dict(name="mmtm", reduction=4),  # ours
    msaf=dict(  # the code of MSAF
        name="msaf", block_dims=(16, 32), reduction=4, block_dropout=0.2
    ),
)
"""Row of Table 1 -> model with the encoders of CFN-SR."""


def _row_of_table_1(config: ConfigDict, row: str) -> None:
    """Replaces the model by a baseline of Sec. 3.3."""
    config.model = dict(
        encoders=config.model.encoders,
        dropout=config.model.dropout,
        audio_pooling=config.model.audio_pooling,
        **TABLE_1[row],
    )
    if row in ("averaging", "multiplication"):
        # The networks are trained alone and then combined, without another epoch.
        config.pretrain_epochs, config.train.epochs = config.train.epochs, 0
    if row == "multiplicative":
        config.losses.task = dict(
            name="multiplicative", weight=1.0, modalities=("audio", "video"), beta=0.3
        )


def _digits(config: ConfigDict) -> None:
    config.data.label = "digit"
    config.data.missing_rate = 0.0
    config.data.cache_dir = ""
    config.model.encoders.video = dict(
        name="resnext_3d", blocks=(1, 1), base_channels=8
    )
    config.train.epochs = 8


def _ravdess(config: ConfigDict) -> None:
    config.data.update(
        dict(
            data_dir="",
            landmarks_dir="",
            fold="all",
            folds=5,
            size=224,
            frame_sampling="uniform",
            crop="full",
            pad_mode="reflect",
            augment=True,
            augment_per_frame=False,  # True: code
            max_left_out=0.0,
        )
    )


def _ravdess_released_code(config: ConfigDict) -> None:
    # What the released code does where it departs from the paper.
    _ravdess(config)
    config.data.name = "ravdess"  # the word after the colon is not a dataset
    config.data.augment_per_frame = True
    # The code squeezes the frame to 224x224 before it crops the face.
    config.data.crop = "released_code"
    config.model.variant = "released_code"
    # The code reads frames with OpenCV, in the channel order BGR, and its fused network
    # lacks the ReLU after the first convolution.
    config.model.encoders.video.update(dict(stem_relu=False, channel_order="bgr"))


def _ravdess_features(config: ConfigDict) -> None:
    # Chosen on validation actors, see experiments/ravdess_features.
    config.data.update(dict(data_dir="", fold="all", folds=5, batch_size=32, stride=4))
    config.data.augment = dict(
        freq_warp=0.12,
        time_stretch=0.15,
        shift=0.07,
        mask=0.13,
        noise=0.2,
        face_noise=0.3,
        face_scale_std=0.2,
    )
    config.model.encoders.audio.pool = 4
    # 35 action units, each calibrated in two ways, replace the video.
    config.model.encoders.video = dict(
        name="feature_tokens", features_per_token=2, dropout=0.5
    )
    config.model.update(dict(num_layers=1, num_heads=4, hidden_dim=32, dropout=0.5))
    config.model.audio_pooling = "mean_std"
    config.optim.update(dict(name="adamw", learning_rate=3e-3, weight_decay=0.05))
    config.optim.schedule = dict(name="cosine", warmup_steps=25)
    config.train.epochs = 20


def _clips(config: ConfigDict) -> None:
    config.data.update(
        dict(
            data_dir="",
            labels="",
            classes=(),  # names of all classes; (): those that occur
            label="label",
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
    # Narrow, for tens to thousands of clips and a CPU; the paper's network is
    # --config.model.encoders.video.blocks=3,4,6,3 and base_channels=64.
    config.model.encoders.video = dict(
        name="resnext_3d", blocks=(1, 1, 1), base_channels=16
    )
    config.train.epochs = 30


def _av_mnist(config: ConfigDict) -> None:
    # The block on the encoders that all AV-MNIST configs share, and no dropout; all
    # values ours but for the size of the block.
    config.seed = 0
    config.data.batch_size = 32
    config.data.update(dict(label="digit", data_dir="", snr_db=-12.0))
    config.data.update(
        dict(held_out_speaker="", max_train_pairs=0, cache_in_memory=False)
    )
    config.model.encoders = dict(
        audio=dict(
            name="image_cnn", channels=(8, 16, 32, 64), downsample=2
        ),  # 9 tokens
        image=dict(name="image_cnn", channels=(16, 32, 64)),  # 9 tokens
    )
    config.model.update(dict(dropout=0.0, embed_dropout=0.0, layer_dropout=0.0))
    config.model.attended_modality = "image"
    config.model.causal = False  # positions of a spectrogram, not steps in time
    config.optim.update(dict(learning_rate=2e-3, schedule=dict(name="cosine")))
    config.train.epochs = 20
    config.pretrain_unimodal = ()  # all models of the table see the data equally often
