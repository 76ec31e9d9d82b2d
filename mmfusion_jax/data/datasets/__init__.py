"""One module or package for each data set."""
