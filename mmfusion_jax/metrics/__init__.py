"""Sums over batches, and scores from sums."""
