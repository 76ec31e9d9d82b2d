"""RAVDESS speech, as videos and as precomputed features."""
