"""Data sets: from files to padded, masked examples addressed by the step number.

`table.py` lists them; nothing is imported here, so that a command can start at once.
"""
