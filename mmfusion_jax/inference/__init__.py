"""Use of a trained run: predictions for new files and arrays."""

from typing import TYPE_CHECKING

from mmfusion_jax.lazy import attach, by_name

PUBLIC = by_name(
    (
        "mmfusion_jax.inference.export_run:export",
        "mmfusion_jax.inference.prediction:Prediction",
        "mmfusion_jax.inference.prediction:WithoutModality",
        "mmfusion_jax.inference.predictor:Predictor",
        "mmfusion_jax.inference.predictor:load",
        "mmfusion_jax.inference.clip_inputs:ClipInput",
    )
)
"""Public name -> import path."""

if TYPE_CHECKING:
    from mmfusion_jax.inference.clip_inputs import ClipInput as ClipInput
    from mmfusion_jax.inference.export_run import export as export
    from mmfusion_jax.inference.prediction import Prediction as Prediction
    from mmfusion_jax.inference.prediction import WithoutModality as WithoutModality
    from mmfusion_jax.inference.predictor import Predictor as Predictor
    from mmfusion_jax.inference.predictor import load as load
else:
    __getattr__, __dir__, __all__ = attach(__name__, PUBLIC)
