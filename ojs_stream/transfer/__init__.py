"""A namespace taken out of one log and brought into another: ``ojs-stream export`` and ``import``."""
