"""The table of auxiliary outputs in CONTRIBUTING.md against those of all models."""

import re

import jax
import pytest
from paths import ROOT
from small_configs import SMALL, digits, small

from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.resolve import resolve

BASELINES = ("unimodal", "late_fusion", "concat_fc", "mcbp", "mmtm", "msaf")
MODALITIES = ("audio", "image", "text", "video")


def rows() -> list[tuple[list[str], set[str]]]:
    """The names and the makers of every row of the table."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    table = text.split("| auxiliary output | shape |")[1].split("\n\n")[0]
    cells = [line.split("|")[1:-1] for line in table.splitlines()[2:]]
    words = lambda cell: re.findall(r"`([^`]+)`", cell)
    return [(words(names), set(words(makers))) for names, _, makers, _ in cells]


def is_called(name: str, pattern: str) -> bool:
    """Whether a name has the form of the table, in which <m> is a modality."""
    one = "|".join(MODALITIES)
    forms = {"<m>": f"({one})", "<ms>": f"({one})(_({one}))*"}
    parts = re.split("(<ms?>)", pattern)
    return (
        re.fullmatch("".join(forms.get(p, re.escape(p)) for p in parts), name)
        is not None
    )


def aux_names(config) -> set[str]:
    """The names of the auxiliary outputs of a model in training and evaluation."""
    spec = resolve(config)
    data = digits(modalities=spec.model.modalities)
    parts = build.build_components(spec, data, 4)
    batch = build_data.build_pipeline(spec, data, 0).dummy_batch()
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}

    def run(batch):
        variables = parts.model.init(keys, batch, train=False)
        apply = parts.model.apply
        trained, _ = apply(
            variables, batch, train=True, mutable=["batch_stats"], rngs=keys
        )
        return {**trained.aux, **apply(variables, batch, train=False).aux}

    return set(jax.eval_shape(run, batch))


def config(model: str):
    if model not in BASELINES:
        return small(model)
    made = small("cfn_sr", pretrain_unimodal=())
    made.model = {"name": model, "encoders": made.model.encoders.to_dict()}
    if model == "msaf":
        made.model.block_dims = (4, 4)
    made.losses = {"task": {"name": "cross_entropy"}}
    if model == "unimodal":
        del made.model.encoders["video"]
        del made.data.modality_dropout["video"]
    return made


@pytest.mark.parametrize("model", [*SMALL, *BASELINES])
def test_the_table_has_the_auxiliary_outputs_of_a_model(model):
    found = aux_names(config(model))
    assert found
    patterns = [p for names, makers in rows() if model in makers for p in names]
    assert patterns
    missing = [x for x in found if not any(is_called(x, p) for p in patterns)]
    assert not missing
    assert not [p for p in patterns if not any(is_called(x, p) for x in found)]
