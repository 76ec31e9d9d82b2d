"""Decoding of video and audio files, and their labels.csv."""
