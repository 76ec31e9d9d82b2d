"""Storage of prepared data sets, and the processes that prepare them."""
