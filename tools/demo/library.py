"""The work: the files of the Python standard library, and what a job finds out about one of them, or about all."""

from __future__ import annotations

import hashlib
import io
import sysconfig
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

INSPECT_TYPE = "demo.inspect"
HASH_TYPE = "demo.hash"
TOTAL_TYPE = "demo.total"

_FOREIGN_FOLDERS = frozenset({"site-packages", "dist-packages"})
_BROKEN_SAMPLE = b"# -*- coding: no-such-encoding -*-\n"


class UntokenizableError(Exception):
    """The file is not Python that this interpreter can tokenize."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a job reports about a file."""

    sha256: str
    lines: int
    tokens: int

    def as_result(self) -> dict[str, str | int]:
        """Return the result object that travels with the ack."""
        return {"sha256": self.sha256, "lines": self.lines, "tokens": self.tokens}


def library_root() -> Path:
    """Return the folder of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def library_files(root: Path) -> list[str]:
    """Return the paths of all `*.py` files below a folder, `test/` included, installed packages excluded."""
    files = (path.relative_to(root) for path in root.rglob("*.py") if path.is_file())
    return sorted(path.as_posix() for path in files if _FOREIGN_FOLDERS.isdisjoint(path.parts))


def inspect(path: Path) -> Inspection:
    """Return hash, line count and token count of a file.

    Raises UntokenizableError when the tokenizer refuses it.
    """
    content = path.read_bytes()
    return Inspection(
        sha256=hashlib.sha256(content).hexdigest(),
        lines=len(content.splitlines()),
        tokens=_count_tokens(content),
    )


def _count_tokens(content: bytes) -> int:
    try:
        return sum(1 for _ in tokenize.tokenize(io.BytesIO(content).readline))
    except (tokenize.TokenError, SyntaxError, UnicodeDecodeError) as error:
        raise UntokenizableError(type(error).__name__, str(error)) from error


def hash_file(path: Path) -> dict[str, str | int]:
    """Return hash and size of a file: the result of a job of the workflow."""
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def total_of(results: Iterable[Mapping[str, Any]]) -> dict[str, str | int]:
    """Add the results of many files up, in their order: how many, how many bytes, one hash over all hashes."""
    files, size, over_all = 0, 0, hashlib.sha256()
    for result in results:
        files += 1
        size += result["size"]
        over_all.update(result["sha256"].encode())
    return {"files": files, "size": size, "sha256": over_all.hexdigest()}


def inspect_named(root: str, name: str) -> tuple[str, dict[str, str | int] | None]:
    """Return name and result of a file, None for one that does not tokenize. For process pools."""
    try:
        return name, inspect(Path(root) / name).as_result()
    except UntokenizableError:
        return name, None


def broken_sample(folder: Path) -> str:
    """Write a file that does not tokenize and return its absolute path.

    For interpreters whose standard library is installed without its tests and holds no such file.
    """
    path = folder / "broken_sample.py"
    path.write_bytes(_BROKEN_SAMPLE)
    return str(path)
