"""Datasets: from files to padded, masked examples addressed by the step number.

`registry.py` lists them; none is imported here, so that commands start fast.
"""

from absl import logging

# With jaxlib before 0.11, importing grain logs that it cannot profile its worker
# processes. There are none here, and every run would begin with a warning.
logging.get_absl_logger().addFilter(
    lambda entry: not str(entry.msg).startswith("Grain multiprocess worker profiling")
)
