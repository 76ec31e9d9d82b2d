"""Storage of prepared datasets, and the processes that prepare them."""
