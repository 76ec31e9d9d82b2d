"""Data sets: from files to padded, masked examples addressed by the step number.

`table.py` lists them; none is imported here, so that a command can start at once.
"""

from absl import logging

# With a jaxlib before 0.11, grain says when it is imported that it cannot profile its
# worker processes. There are none here, and a run would begin with a warning.
logging.get_absl_logger().addFilter(
    lambda entry: not str(entry.msg).startswith("Grain multiprocess worker profiling")
)
