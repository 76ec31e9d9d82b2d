"""jit, pmap and shard_map on 1, 2 and 8 devices do the maths of one device."""

import pytest

# In the default group, test_cfn_sr.py and test_residual_attention.py compare devices.
pytestmark = pytest.mark.ci

LIMITS = {"x64": 1e-12, "x32": 2e-5}


@pytest.fixture(
    scope="module", params=["x64", pytest.param("x32", marks=pytest.mark.versions)]
)
def differences(request, answer_of):
    return LIMITS[request.param], answer_of("subprocess_executors.py", request.param)


def test_every_executor_equals_one_device(differences):
    limit, found = differences
    apart = {k: v for k, v in found.items() if k != "dropout_pmap8" and v > limit}
    assert not apart


def test_devices_draw_their_own_dropout_under_pmap(differences):
    _, found = differences
    if "dropout_pmap8" in found:  # measured in one precision only
        assert found["dropout_pmap8"] > 1e-3


@pytest.mark.parametrize(
    "paper",
    [
        pytest.param("hetero_fusion_net", marks=pytest.mark.versions),
        pytest.param("of_cmaer_cat", marks=pytest.mark.slow),  # compile for a minute
        pytest.param("mea", marks=pytest.mark.slow),
    ],
)
def test_losses_of_a_paper_are_the_same_on_two_devices(paper, answer_of):
    """Those of the other two papers are in test_mcl_mcf.py and above."""
    found = answer_of("subprocess_small_configs.py", paper)
    assert set(found) == {"jit2", "pmap2", "shard_map2"}
    assert not {k: v for k, v in found.items() if v > 1e-12}
