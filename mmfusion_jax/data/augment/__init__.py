"""Augmentation of training examples: audio, image, text, features, modalities."""
