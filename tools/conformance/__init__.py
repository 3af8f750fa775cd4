"""The OJS conformance runner: JSON cases against running servers, judged as OJS.md section 0 says.

``run_suite`` is the API for a test with one server, ``serve`` and ``run_lanes`` for one with every configuration;
``python -m tools.conformance`` is the command. The cases are data
outside the project (``OJS_CONFORMANCE_SUITES``). It knows the HTTP surface and nothing of a server's inside.
"""

from __future__ import annotations

from tools.conformance.cases import Case, CaseError, load_cases
from tools.conformance.judge import Failure
from tools.conformance.report import REQUIRED, Required, regressions
from tools.conformance.runner import CaseResult, lanes_of, run_lanes, run_suite

__all__ = [
    "REQUIRED",
    "Case",
    "CaseError",
    "CaseResult",
    "Failure",
    "Required",
    "lanes_of",
    "load_cases",
    "regressions",
    "run_lanes",
    "run_suite",
]
