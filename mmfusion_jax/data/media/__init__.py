"""Decoding of video and audio files, and the table of their labels."""
