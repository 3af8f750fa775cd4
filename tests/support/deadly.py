"""A job worker that a job kills: ``python tests/support/deadly.py URL QUEUE`` takes one job and dies of it.

It ends with code 3 when it gets none.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.request


def main(url: str, queue: str) -> int:
    asked = json.dumps({"queues": [queue], "worker_id": f"deadly-{os.getpid()}", "wait_ms": 10_000}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/ojs/v1/workers/fetch", asked, headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        jobs = json.load(answer)["jobs"]
    if not jobs:
        return 3
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
