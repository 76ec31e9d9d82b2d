"""Convolutions and pooling in forms that are fast on CPU."""
