"""MEA; the paper reports Acc_2 84.4 % on MOSI, 85.2 % on MOSEI.

    python -m mmfusion_jax.main --config=configs/mea.py            # embedded digits
    python -m mmfusion_jax.main --config=configs/mea.py:mosi       # the paper
    python -m mmfusion_jax.main --config=configs/mea.py:mosei
    python -m mmfusion_jax.main --config=configs/mea.py:iemocap
    python -m mmfusion_jax.main --config=configs/mea.py:mmmo
    python -m mmfusion_jax.main --config=configs/mea.py:mosi_utterances

Values are those of Table I and Sec. IV; "ours" marks what the paper does not give.

Each row of Table V needs these flags, all of which begin with --config. :

    w/o L_dis               losses.disparity.weight=0
    w/ L_sep                losses.disparity.name=separation
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

ORDER = ("text", "video", "audio")  # L, V, A


def get_config(data: str = "digits") -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.seeds = 1
    config.protocol = "honest"
    config.parallel = "jit"
    config.compute_dtype = "float32"
    config.data = dict(name=data, label="score", fold="0", folds=1)
    config.data.batch_size = 32
    config.data.threads = 2
    config.model = dict(
        name="mea",
        encoders={
            m: dict(name="conv_lstm", width=40, kernel=3, positions="sinusoid")
            for m in ORDER
        },
        order=ORDER,
        width=64,
        heads=8,
        psa_layers=3,
        psa="literal",
        mu=0.25,
        wal="token",
        hca_layers=2,
        mixed=True,
        coarse=True,
        fine=True,
        hca_sources="updated",
        exclusive=True,
        agnostic=True,
        pool="mean",
        fusion="graph",
        self_loops=False,
        adversarial=True,
        omega="detached",
        reversal=1.0,
        ramped=False,
        head_form="perceptron",
        scale="head",
        out_proj=False,
        ffn_mult=4,
        dropout=0.1,  # ours
        standardise=True,  # ours
        remat=True,
    )
    config.losses = dict(task=dict(name="mse", weight=1.0))
    config.optim = dict(
        name="adam",
        learning_rate=1e-3,
        schedule=dict(name="constant"),
        clip_norm=0.0,
        weight_decay=0.0,
        l2=0.0,
        plateau=dict(factor=0.5, patience=0),
        groups=dict(),
        accumulate=1,
    )
    config.train = dict(
        epochs=60,
        select="loss",
        patience=0,
        log_every=20,
        save_every=0,
        max_bad_steps=3,
    )
    config.warm_start = ()
    config.distributed = dict(coordinator="", num_processes=1, process_id=0)

    variants = dict(
        digits=_digits,
        mosi=_mosi,
        mosei=_mosei,
        iemocap=_iemocap,
        mmmo=_mmmo,
        mosi_utterances=_mosi_utterances,
    )
    if data not in variants:
        raise ValueError(f"data={data!r}; mea knows {', '.join(sorted(variants))}.")
    variants[data](config)
    return config


def _constraints(config: ConfigDict, alpha: float, beta: float) -> None:
    """Eq. 20; without a paper's value, D_i learns as fast as D_m does."""
    weights = dict(
        hsic=("disparity", alpha),
        agnostic_adversary=("agnostic", beta),
        exclusive_adversary=("exclusive", beta),
        importance=("importance", beta),
    )
    for name, (term, weight) in weights.items():
        config.losses[term] = dict(name=name, weight=weight, modalities=ORDER)
    config.losses.agnostic.omega = config.model.get_oneway_ref("omega")


def _classes(config: ConfigDict, label: str) -> None:
    """The label is a class."""
    config.data.label = label
    config.losses.task.name = "cross_entropy"
    config.train.select = "accuracy"


def _digits(config: ConfigDict) -> None:
    _constraints(config, alpha=2e-2, beta=3e-2)
    _classes(config, "digit")
    config.data.update(dict(modalities=ORDER, missing=0.0, folder=""))
    config.model.encoders = {
        # Positions would drown the words and pixels, which start small; ours.
        m: dict(name="conv_lstm", width=24, kernel=3, positions="none")
        for m in ORDER
    }
    config.model.encoders.text.vocabulary = 64
    config.model.update(dict(heads=4, psa_layers=2, hca_layers=1, remat=False))
    # At full strength from the start, D_m keeps some seeds at chance for epochs; ours.
    config.model.ramped = True
    config.data.batch_size = 16
    config.optim.schedule.name = "cosine"
    config.train.epochs = 12


def _imported(config: ConfigDict) -> None:
    """Features that `python -m mmfusion_jax data import` has read."""
    config.data.update(dict(file="", text="vectors", standardise=()))


def _mosi(config: ConfigDict) -> None:
    _constraints(config, alpha=2e-2, beta=3e-2)
    _imported(config)


def _mosei(config: ConfigDict) -> None:
    _constraints(config, alpha=3e-2, beta=5e-2)
    _imported(config)
    config.data.batch_size = 64
    config.model.update(dict(heads=10, mu=0.15))
    config.optim.learning_rate = 2e-3
    config.train.epochs = 100


def _iemocap(config: ConfigDict) -> None:
    _constraints(config, alpha=1e-2, beta=2e-2)
    _imported(config)
    config.data.label = "emotions"
    config.losses.task.name = "multilabel"
    config.model.mu = 0.2
    config.model.encoders.audio.kernel = 5


def _mmmo(config: ConfigDict) -> None:
    # Few clips: a small network, all values ours; epochs: see the experiment.
    _small(config)
    config.data.update(dict(dir="", folds=5, fold="all", textless=False))
    config.model.start = 3.0  # the middle of 1 to 5
    config.optim.schedule.name = "constant"
    config.train.update(dict(epochs=6, select="mae"))


def _mosi_utterances(config: ConfigDict) -> None:
    # The steps are the utterances of a video; all values ours.
    _small(config)
    _classes(config, "polarity")
    config.data.update(dict(dir="", before=0, after=0))
    config.train.epochs = 3


def _small(config: ConfigDict) -> None:
    _constraints(config, alpha=2e-2, beta=3e-2)
    config.model.encoders = {
        m: dict(name="conv_lstm", width=16, kernel=1, positions="none") for m in ORDER
    }
    sizes = dict(width=32, heads=4, psa_layers=2, hca_layers=1, remat=False)
    config.model.update(dict(sizes, dropout=0.5))
    config.optim.update(dict(name="adamw", weight_decay=0.01))
    config.optim.schedule.name = "cosine"
    config.train.epochs = 20
