"""Loss terms, and the objective that weighs and adds them."""

from mmfusion_jax.losses.multiplicative import Multiplicative
from mmfusion_jax.losses.supervised import CrossEntropy

LOSSES = {
    "cross_entropy": CrossEntropy,
    "multiplicative": Multiplicative,
}
