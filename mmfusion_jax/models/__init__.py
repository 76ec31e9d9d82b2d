"""One file per paper, and the baselines of their tables."""
