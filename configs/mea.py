"""MEA; the paper reports Acc_2 84.4 % on MOSI, 85.2 % on MOSEI.

    python -m mmfusion_jax.main --config=configs/mea.py            # embedded digits
    python -m mmfusion_jax.main --config=configs/mea.py:mosi       # the paper
    python -m mmfusion_jax.main --config=configs/mea.py:mosei
    python -m mmfusion_jax.main --config=configs/mea.py:iemocap          # Table IV
    python -m mmfusion_jax.main --config=configs/mea.py:iemocap_emotion  # four classes
    python -m mmfusion_jax.main --config=configs/mea.py:mmmo
    python -m mmfusion_jax.main --config=configs/mea.py:mosi_utterances

With _ctc after digits, mosi, mosei or iemocap, CTC aligns audio and video (of digits
only audio) to the words of the text, as the paper does for EF-LSTM, RAVEN and MCTN in
Tables II to IV. --config.model.name=concat_fc, or another baseline, keeps it.

Values are those of Table I and Sec. IV; "ours" marks what the paper does not give, or
what it prints otherwise. docs/papers.md has the reasons.

Each row of Table V needs these flags, all of which begin with --config. :

    w/o L_dis               losses.disparity.weight=0
    w/ L_sep                losses.disparity.name=difference_loss
    w/o L_agn + L_exc       model.adversarial=False losses.agnostic.weight=0
                            losses.exclusive.weight=0 losses.importance.weight=0
    w/o omega               model.omega=one losses.importance.weight=0
    w/o exclusive           model.exclusive=False losses.disparity.weight=0
                            losses.exclusive.weight=0
    w/o agnostic            model.agnostic=False losses.disparity.weight=0
                            losses.agnostic.weight=0 losses.importance.weight=0
    w/o PSA                 model.psa_layers=0
    w/o prediction chain    model.mu=0
    w/o WAL                 model.wal=off
    w/o HCA                 model.hca_layers=0
    w/o mixed MRU           model.mixed=False
    w/o coarse MRU          model.coarse=False
    w/o fine MRU            model.fine=False
    w/o graph fusion        model.fusion=concat
    w/ addition             model.fusion=addition
    w/ multiplication       model.fusion=multiplication

The axes of Figures 7 to 9 are model.mu; losses.disparity.weight for alpha; the weights
of losses.agnostic, .exclusive and .importance for beta; model.psa_layers, .hca_layers.
The option model.omega=joint needs losses.importance.weight=0, as D_i has no loss then.
"""

from ml_collections import ConfigDict

from mmfusion_jax.config.base import base_config

ORDER = ("text", "video", "audio")  # L, V, A
ALIGNED = dict(
    digits_ctc=(16, ("audio",)),  # a video has as many frames as the text has words
    mosi_ctc=(50, ("video", "audio")),
    mosei_ctc=(50, ("video", "audio")),
    iemocap_ctc=(20, ("video", "audio")),
)
"""Part after the colon -> words of a text, and the modalities aligned to them."""


def get_config(data: str = "digits") -> ConfigDict:
    config = base_config()
    dataset = data.removesuffix("_ctc") if data in ALIGNED else data
    config.data.update(dict(name=dataset, label="score"))
    config.model = dict(
        name="mea",
        encoders={
            m: dict(
                name="conv_lstm", hidden_dim=40, kernel_size=3, positions="sinusoid"
            )
            for m in ORDER
        },
        modality_order=ORDER,
        hidden_dim=64,
        num_heads=8,
        psa_layers=3,
        psa="literal",
        mu=0.25,
        wal="token",  # ours; as printed, "dense", W_m has (T d)^2 weights
        hca_layers=2,
        mixed=True,
        coarse=True,
        fine=True,
        hca_sources="updated",  # ours
        exclusive=True,
        agnostic=True,
        pool="mean",  # ours
        fusion="graph",
        self_loops=False,  # ours: N_i is not defined
        adversarial=True,
        omega="detached",  # ours: no loss of the paper trains D_i
        grl_lambda=1.0,  # ours
        grl_warmup=False,  # ours
        head_type="mlp",  # ours
        scale="head",  # ours; as printed, "width", sqrt(d) for all heads
        out_proj=False,
        ffn_mult=4,  # ours
        dropout=0.1,  # ours
        standardize="affine",  # ours
        remat=True,
    )
    config.losses = dict(task=dict(name="mse", weight=1.0))
    config.train.update(dict(epochs=60, selection_metric="loss"))  # selection: ours

    variants = dict(
        digits=_digits,
        mosi=_mosi,
        mosei=_mosei,
        iemocap=_iemocap,
        iemocap_emotion=_iemocap_emotion,
        mmmo=_mmmo,
        mosi_utterances=_mosi_utterances,
    )
    if dataset not in variants:
        known = ", ".join(sorted({**variants, **ALIGNED}))
        raise ValueError(f"data={data!r}; mea knows {known}.")
    variants[dataset](config)
    if data in ALIGNED:
        _align(config, *ALIGNED[data])
    return config


def _align(config: ConfigDict, length: int, modalities: tuple[str, ...]) -> None:
    """Aligns to one step per word; the weight is per word, as PyTorch's mean. Ours."""
    for m in modalities:
        encoder = config.model.encoders[m].to_dict()
        config.model.encoders[m] = dict(
            name="ctc_aligned", length=length, encoder=encoder
        )
        config.losses[f"ctc_{m}"] = dict(name="ctc", weight=1 / length, modalities=(m,))


def _constraints(config: ConfigDict, alpha: float, beta: float) -> None:
    """Sets the constraints of Eq. 20.

    The paper has no loss of D_i: that and its weight, the one of D_m, are ours.
    """
    weights = dict(
        hsic=("disparity", alpha),
        agnostic_adversary=("agnostic", beta),
        exclusive_adversary=("exclusive", beta),
        importance_discriminator=("importance", beta),
    )
    for name, (term, weight) in weights.items():
        config.losses[term] = dict(name=name, weight=weight, modalities=ORDER)
    # A reference: a flag that changes omega of the model changes that of the loss too.
    config.losses.agnostic.omega = config.model.get_oneway_ref("omega")


def _classes(config: ConfigDict, label: str) -> None:
    """Sets a label that is a class."""
    config.data.label = label
    config.losses.task.name = "cross_entropy"
    config.train.selection_metric = "accuracy"


def _digits(config: ConfigDict) -> None:
    # A small network for little data and a CPU, all values ours.
    _constraints(config, alpha=2e-2, beta=3e-2)
    _classes(config, "digit")
    config.data.update(dict(modalities=ORDER, missing_rate=0.0, cache_dir=""))
    config.model.encoders = {
        # Position encodings are larger than the initial embeddings; ours.
        m: dict(name="conv_lstm", hidden_dim=24, kernel_size=3, positions="none")
        for m in ORDER
    }
    config.model.encoders.text.vocab_size = 64
    # The paper reads features of faces, not pixels; ours.
    config.model.encoders.video.frame_channels = (8, 16)
    config.model.update(dict(num_heads=4, psa_layers=2, hca_layers=1, remat=False))
    # At full strength from the start, D_m keeps some seeds at chance for epochs; ours.
    config.model.grl_warmup = True
    # Ours, selected on validation: see the experiment.
    config.optim.learning_rate = 2e-3
    config.optim.schedule.name = "cosine"
    config.train.epochs = 12


def _imported(config: ConfigDict) -> None:
    """Sets features that `python -m mmfusion_jax data import` imported."""
    config.data.update(dict(file="", text="vectors", standardize=()))


def _mosi(config: ConfigDict) -> None:
    _constraints(config, alpha=2e-2, beta=3e-2)
    _imported(config)


def _mosei(config: ConfigDict) -> None:
    _constraints(config, alpha=3e-2, beta=5e-2)
    _imported(config)
    config.data.batch_size = 64
    config.model.update(dict(num_heads=10, mu=0.15))
    config.optim.learning_rate = 2e-3
    config.train.epochs = 100


def _iemocap(config: ConfigDict) -> None:
    _constraints(config, alpha=1e-2, beta=2e-2)
    _imported(config)
    config.data.label = "emotions"
    config.losses.task.name = "multilabel"
    config.model.mu = 0.2
    config.model.encoders.audio.kernel_size = 5


def _iemocap_emotion(config: ConfigDict) -> None:
    # The one emotion that is present, not four yes/no flags; not in the paper.
    _iemocap(config)
    config.data.name = "iemocap"
    _classes(config, "emotion")


def _mmmo(config: ConfigDict) -> None:
    # Few clips: a small network, all values ours; epochs: see the experiment.
    _small(config)
    config.data.update(dict(data_dir="", folds=5, fold="all"))
    config.data.keep_clips_without_text = False
    config.model.output_bias_init = 3.0  # the middle of 1 to 5
    config.model.standardize = "layer_norm"
    config.optim.schedule.name = "constant"
    config.train.update(dict(epochs=5, selection_metric="mae"))


def _mosi_utterances(config: ConfigDict) -> None:
    # The steps are the utterances of a video; all values ours.
    _small(config)
    _classes(config, "polarity")
    config.data.update(dict(data_dir="", context_before=0, context_after=0))
    config.train.epochs = 3


def _small(config: ConfigDict) -> None:
    _constraints(config, alpha=2e-2, beta=3e-2)
    config.model.encoders = {
        m: dict(name="conv_lstm", hidden_dim=16, kernel_size=1, positions="none")
        for m in ORDER
    }
    sizes = dict(hidden_dim=32, num_heads=4, psa_layers=2, hca_layers=1, remat=False)
    config.model.update(dict(sizes, dropout=0.5))
    config.optim.update(dict(name="adamw", weight_decay=0.01))
    config.optim.schedule.name = "cosine"
    config.train.epochs = 20
