"""The rows of the papers' tables, with the flags that train them.

The numbers are the papers'. They are of other data than the embedded digits, so only
the sign of their difference to the full model is compared.
"""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: Its name in the paper.
        paper: Metric -> number in the paper; empty if it does not have one.
        flags: Fields that differ from the full model, without "--config.".
        suffix: What follows the data in the word after the colon, such as "_late".
        absent: Why the library does not have it; "" if it has.
    """

    name: str
    paper: Mapping[str, float]
    flags: str = ""
    suffix: str = ""
    absent: str = ""


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """A table of a paper.

    Attributes:
        title: Paper and table.
        numbers: What the numbers of the paper are.
        config: Config file, such as "mea".
        full: Name of the row of the full model, which the others are compared with.
        rows: All rows of the table, in its order.
    """

    title: str
    numbers: str
    config: str
    full: str
    rows: tuple[Row, ...]


def _accuracy(value: float) -> dict[str, float]:
    return {"accuracy": value}


CFN_SR_1 = PaperTable(
    "CFN-SR, Table 1",
    "accuracy on RAVDESS, percent",
    "cfn_sr",
    "CFN-SR (Ours)",
    (
        Row(
            "3D ResNeXt50 (Vid.)",
            _accuracy(62.99),
            "model.name=unimodal model.modality=video",
        ),
        Row(
            "1D CNN (Aud.)",
            _accuracy(56.53),
            "model.name=unimodal model.modality=audio",
        ),
        # Words of the config: what is trained alone, and for how long, differs.
        Row("Averaging", _accuracy(68.82), suffix="_averaging"),
        Row("Multiplicative β=0.3", _accuracy(70.35), suffix="_multiplicative"),
        Row("Multiplication", _accuracy(70.56), suffix="_multiplication"),
        Row("Concat + FC", _accuracy(71.04), suffix="_concat_fc"),
        Row("MCBP", _accuracy(71.32), suffix="_mcbp"),
        Row("MMTM", _accuracy(73.12), suffix="_mmtm"),
        Row("MSAF", _accuracy(74.86), suffix="_msaf"),
        Row("ERANNs", _accuracy(74.80), absent="an audio network of another paper"),
        Row("CFN-SR (Ours)", _accuracy(75.76)),
    ),
)

CFN_SR_2 = PaperTable(
    "CFN-SR, Table 2",
    "accuracy on RAVDESS, percent",
    "cfn_sr",
    "CFN-SR",
    (
        Row("CFN-SR", _accuracy(75.76)),
        Row("w/o Cross-modal Blocks", _accuracy(73.50), "model.cross=none"),
        Row("V->A Cross-modal", _accuracy(74.15), "model.cross=video_to_audio"),
        Row("A->V Cross-modal", _accuracy(75.76)),
        Row("w/o self-attention", _accuracy(73.86), "model.self_attention=False"),
        Row("w/o residual", _accuracy(75.33), "model.residual=False"),
    ),
)

MEA_5 = PaperTable(
    "MEA, Table V",
    "Acc_7 on MOSI, percent; F1 and the numbers on MOSEI have the same signs",
    "mea",
    "MEA (Full Model)",
    (
        Row("MEA (Full Model)", _accuracy(42.5)),
        Row(
            "w/o Disparity Constraint L_dis",
            _accuracy(41.9),
            "losses.disparity.weight=0",
        ),
        Row(
            "w/ Separation Constraint L_sep",
            _accuracy(42.1),
            "losses.disparity.name=difference_loss",
        ),
        Row(
            "w/o Adversarial Constraints L_agn + L_exc",
            _accuracy(41.3),
            "model.adversarial=False losses.agnostic.weight=0 "
            "losses.exclusive.weight=0 losses.importance.weight=0",
        ),
        Row(
            "w/o Degree ω_m^a",
            _accuracy(42.3),
            "model.omega=one losses.importance.weight=0",
        ),
        Row(
            "w/o Modality-Exclusive",
            _accuracy(39.4),
            "model.exclusive=False losses.disparity.weight=0 losses.exclusive.weight=0",
        ),
        Row(
            "w/o Modality-Agnostic",
            _accuracy(40.6),
            "model.agnostic=False losses.disparity.weight=0 losses.agnostic.weight=0 "
            "losses.importance.weight=0",
        ),
        Row("w/o PSA Module", _accuracy(38.7), "model.psa_layers=0"),
        Row("w/o Prediction Chain", _accuracy(41.6), "model.mu=0"),
        Row("w/o Weighted Attention Layer", _accuracy(41.8), "model.wal=off"),
        Row("w/o HCA Module", _accuracy(39.5), "model.hca_layers=0"),
        Row("w/o MRU (Mixed-grained)", _accuracy(41.5), "model.mixed=False"),
        Row("w/o MRU (Coarse-grained)", _accuracy(42.3), "model.coarse=False"),
        Row("w/o MRU (Fine-grained)", _accuracy(41.2), "model.fine=False"),
        Row(
            "w/o Decoupled Graph Fusion Mechanism",
            _accuracy(41.6),
            "model.fusion=concat",
        ),
        Row("w/ Feature Addition", _accuracy(40.1), "model.fusion=addition"),
        Row(
            "w/ Feature Multiplication", _accuracy(41.8), "model.fusion=multiplication"
        ),
    ),
)

MCL_MCF_5 = PaperTable(
    "MCL-MCF, Table 5",
    "Acc-2 (negative, positive) on CMU-MOSI, percent; its other metrics have the same "
    "signs",
    "mcl_mcf",
    "MCL-MCF",
    (
        Row("MCL-MCF", _accuracy(87.3)),
        Row(
            "w/o MCL-F",
            _accuracy(85.9),
            "model.levels=2,3 losses.level1.weight=0",
        ),
        Row(
            "w/o MCL-S",
            _accuracy(86.2),
            "model.levels=1,3 losses.level2.weight=0",
        ),
        Row(
            "w/o MCL-T",
            _accuracy(85.81),
            "model.levels=1,2 losses.level3.weight=0",
        ),
        Row(
            "w/o MCL",
            _accuracy(85.5),
            "model.levels=() losses.level1.weight=0 losses.level2.weight=0 "
            "losses.level3.weight=0",
        ),
        Row("w/o MCF", _accuracy(86.2), "model.mcf=False"),
    ),
)

HETERO_FUSION_NET_3 = PaperTable(
    "Hetero-Fusion-Net, Table 3, and the accuracy of Table 1",
    "MIS and its parts of Table 3, accuracy of Table 1 in percent, of no named data",
    "hetero_fusion_net",
    "Hetero-Fusion-Net",
    (
        Row("Early Fusion", _accuracy(78.45), suffix="_early"),
        Row(
            "Late Fusion",
            {
                "accuracy": 81.23,
                "mis": 0.7234,
                "consistency": 0.6823,
                "confidence": 0.7145,
            },
            suffix="_late",
        ),
        Row(
            "Hetero-Fusion-Net",
            {
                "accuracy": 91.67,
                "mis": 0.8891,
                "consistency": 0.8567,
                "confidence": 0.8934,
            },
        ),
    ),
)

OF_CMAER_CAT_4 = PaperTable(
    "OF-CMAER-CAT, Table 4",
    "accuracy on IEMOCAP, percent",
    "of_cmaer_cat",
    "+ Transformer (OF-CMAER-CAT)",
    (
        Row("CNN encoders only", _accuracy(81.2), suffix="-cnn"),
        Row("+ CMAA", _accuracy(86.9), suffix="-cmaa"),
        Row("+ AWOM", _accuracy(89.7), suffix="-awom"),
        Row("+ Contrastive Loss", _accuracy(91.8), suffix="-contrastive"),
        Row("+ Transformer (OF-CMAER-CAT)", _accuracy(93.2)),
    ),
)

TABLES: Mapping[str, PaperTable] = {
    "cfn_sr_1": CFN_SR_1,
    "cfn_sr_2": CFN_SR_2,
    "mea_5": MEA_5,
    "mcl_mcf_5": MCL_MCF_5,
    "hetero_fusion_net_3": HETERO_FUSION_NET_3,
    "of_cmaer_cat_4": OF_CMAER_CAT_4,
}
