"""Feature files: their layouts, checks and import."""
