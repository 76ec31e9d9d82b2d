"""Embedded digits: synthetic audio, image, text and video of ten classes."""
