"""Config files, and what is built from them."""
