"""Every model does what a model must: the testing kit checks it."""

import model_cases
import pytest
import small_configs
from groups import in_ci

from mmfusion_jax import testing
from mmfusion_jax.config import build
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.pipeline import collate
from mmfusion_jax.types import Tokens

# A variant of a model differs from it in a part, which has checks of its own.
VARIANTS = [name for name in model_cases.CASES if "," in name]
VARIANTS += ["mmtm", "msaf"]  # their blocks and encoders have checks too
# Their programs compile for a minute or two; their masks are tested in test_missing.py.
VARIANTS += ["mea", "mcl_mcf"]
# Other rules for the scores of late fusion, and one of its encoders.
VARIANTS += ["average", "product", "multiplicative", "video alone"]


@pytest.mark.parametrize("name", in_ci(model_cases.CASES, slow=VARIANTS))
def test_properties(name):
    data = small_configs.digits()
    parts = build.build_components(resolve(model_cases.config(name)), data, steps=10)
    source = data.source("train")
    batch = collate([source[i] for i in range(4)])
    inputs = {m: Tokens(batch.inputs[m], batch.masks[m]) for m in parts.modalities}
    report = testing.check_model(parts.model, inputs, name=name, labels=batch.labels)
    assert len(report.checked) + len(report.not_checked) == 19
    not_checked = report.not_checked.get("second derivatives exist")
    assert not_checked in (None, "it does not have parameters")
