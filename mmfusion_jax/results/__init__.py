"""Files of a work folder: their dataclasses, one reader and one writer."""
