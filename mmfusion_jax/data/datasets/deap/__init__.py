"""DEAP: EEG and peripheral signals with ratings of valence and arousal."""
