"""``python -m ojs_stream.cli`` is the same as ``ojs-stream``."""

from __future__ import annotations

from ojs_stream.cli import main

main()
