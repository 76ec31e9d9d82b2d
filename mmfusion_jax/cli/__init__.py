"""Flags, config overrides, error messages and exit codes of every command."""
