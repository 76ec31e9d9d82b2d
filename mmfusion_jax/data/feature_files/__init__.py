"""Files of precomputed features: their layouts, checks and import."""
