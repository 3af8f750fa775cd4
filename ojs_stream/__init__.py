"""An Open Job Spec server whose every change is a record in Kafka and whose state is folded into Redis.

Importing the package is cheap and reads no settings: ``app`` is built at its first use, so that
``faust -A ojs_stream worker`` finds it while the pure core stays free of Faust. There is no ``app.py`` on
purpose: a submodule of that name would shadow the attribute.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Build the Faust application when somebody asks for ``ojs_stream.app``."""
    if name == "app":
        return importlib.import_module("ojs_stream.main").app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
