"""Report of an experiment: one self-contained HTML file."""

from mmfusion_jax.report.page import write_report

__all__ = ["write_report"]
