"""Every block of the documentation that is marked ``run`` does what the page says, against a real server."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import WorkerFactory
from tests.support.servers import BrokerHandle

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```(bash|python) run\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK_TIMEOUT_S = 60.0
COMMANDS = {"bash": ("bash", "-eu", "-o", "pipefail", "-c"), "python": (sys.executable, "-c")}


class Block(NamedTuple):
    """A block of a page."""

    language: str
    text: str


def blocks_of(page: Path) -> Iterator[Block]:
    """The marked blocks of a page, in their order."""
    for found in _BLOCK.finditer(page.read_text()):
        yield Block(found[1], found[2])


PAGES = sorted(page.name for page in DOCS.glob("*.md") if any(blocks_of(page)))


def test_the_pages_have_blocks_to_run() -> None:
    assert {"quickstart.md", "kafka.md"} <= set(PAGES)


@pytest.mark.parametrize("name", PAGES)
async def test_a_page_keeps_what_it_says(
    worker_factory: WorkerFactory, kafka: BrokerHandle, namespace: str, name: str, tmp_path: Path
) -> None:
    worker = await worker_factory(partitions=2)
    for block in blocks_of(DOCS / name):
        text = block.text.replace("localhost:8080", worker.url.removeprefix("http://"))
        text = text.replace("localhost:9092", kafka.bootstrap)
        code, said = await _run(block.language, re.sub(r"\bojs\.(?=[a-z])", f"{namespace}.", text), tmp_path)
        assert code == 0, f"{name}:\n{block.text}\nsaid:\n{said}"


async def _run(language: str, text: str, folder: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *COMMANDS[language],
        text,
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(BLOCK_TIMEOUT_S):
        said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()
