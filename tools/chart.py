"""`python -m tools.chart`: check the Helm chart and render it for the tests, with a real ``helm``.

A test run has no ``helm``. So what it renders for each ``*.values.yaml`` lies beside that file, with a digest of
all that it was rendered from: a chart that was changed and not rendered again fails its test.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy" / "helm" / "ojs-stream"
CASES = ROOT / "tests" / "data" / "chart"
VALUES = ".values.yaml"
RELEASE = "live"
NAMESPACE = "jobs"
DIGEST = "# rendered from "


def digest_of(values: Path) -> str:
    """SHA-256 over every file of the chart and the values, names included."""
    found = hashlib.sha256()
    for path in [*sorted(path for path in CHART.rglob("*") if path.is_file()), values]:
        found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def rendered_path(values: Path) -> Path:
    """Where the manifests of these values are kept."""
    return values.with_name(values.name.removesuffix(VALUES) + ".rendered.yaml")


def main() -> int:
    """Lint and render; the exit code of the first ``helm`` that failed."""
    helm = shutil.which("helm")
    if helm is None:
        print("There is no `helm` on the path: install Helm 3 or 4 and run this again.", file=sys.stderr)
        return 1
    for values in sorted(CASES.glob(f"*{VALUES}")):
        code = _render(helm, values)
        if code:
            return code
    return 0


def _render(helm: str, values: Path) -> int:
    lint = subprocess.run([helm, "lint", "--strict", "--quiet", CHART, "--values", values], check=False)
    if lint.returncode:
        return lint.returncode
    argv: list[str | Path] = [helm, "template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", values]
    answer = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
    if not answer.returncode:
        rendered_path(values).write_text(f"{DIGEST}{digest_of(values)}\n{answer.stdout}")
        print(rendered_path(values).relative_to(ROOT))
    return answer.returncode


if __name__ == "__main__":
    sys.exit(main())
