"""Metrics: each formula with its name, unit, direction and definition."""

METRIC_FAMILIES = {
    "classification": "mmfusion_jax.metrics.classification:ClassificationMetrics",
    "integration": "mmfusion_jax.metrics.integration_score:IntegrationMetrics",
    "multilabel": "mmfusion_jax.metrics.multilabel:MultilabelMetrics",
    "plain": "mmfusion_jax.metrics.regression:RegressionMetrics",
    "sentiment": "mmfusion_jax.metrics.sentiment:SentimentMetrics",
    "sims": "mmfusion_jax.metrics.sims:SimsMetrics",
}
"""Short name -> import path of the metrics of a label."""

METRICS = {"rmse": "mmfusion_jax.metrics.regression:RMSE"}
"""Short name -> import path of a metric that a config can add to those of its label."""
