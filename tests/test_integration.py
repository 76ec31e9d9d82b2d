"""The Multimodal Integration Score beside reference values and by hand."""

import numpy as np
import pytest

from mmfusion_jax.metrics.integration import mis


def test_the_reference(golden):
    arrays = np.load(golden / "golden_metrics.npz", allow_pickle=False)
    keys, values = arrays["mis/ref/keys"].tolist(), arrays["mis/ref/values"].tolist()
    want = dict(zip(keys, values, strict=True))
    data = [arrays[f"mis/{name}"] for name in ("p_fused", "p_modal", "labels")]
    hard, soft, entropy = mis(*data), mis(*data, soft=True), mis(*data, entropy=True)
    for name in ("consistency", "confidence", "accuracy", "mis"):
        np.testing.assert_allclose(hard[name], want[name], rtol=1e-6)
    np.testing.assert_allclose(soft["consistency"], want["consistency_soft"], rtol=1e-6)
    np.testing.assert_allclose(soft["mis"], want["mis_soft"], rtol=1e-6)
    np.testing.assert_allclose(
        entropy["confidence"], want["confidence_entropy"], rtol=1e-6
    )


def test_a_missing_modality_is_not_asked():
    fused = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
    other = np.full((2, 3), np.nan)
    present = np.array([[True, True], [False, False]])
    for soft in (False, True):
        found = mis(fused, [fused, other], [0, 1], present=present, soft=soft)
        np.testing.assert_allclose(found["consistency"], 1)
    np.testing.assert_allclose(found["confidence"], 0.55)
    np.testing.assert_allclose(found["mis"], 0.3 + 0.3 * 0.55 + 0.4 * 0.5)


def test_weights_must_add_up():
    with pytest.raises(ValueError, match=r"add up to 1.2, not to 1"):
        mis(np.eye(2), [np.eye(2)], [0, 1], weights=(0.4, 0.4, 0.4))
