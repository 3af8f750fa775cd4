"""A Redis that wants TLS, a certificate and a user of its access list: named in ``REDIS_URL`` alone."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis.asyncio
import trustme
from redis.exceptions import AuthenticationError, RedisError

from ojs_stream.store.connections import open_reads, open_redis
from tests.conftest import WorkerFactory
from tests.support.client import Client
from tests.support.servers import RedisHandle

USER, PASSWORD = "ojs", "ojs-s3cret"
RULES = ["on", f">{PASSWORD}", "~*", "&*", "+@all", "-@admin", "+config|get"]


class TlsFront:
    """Ends TLS before a Redis that has none: what the client does is the same."""

    def __init__(self, folder: Path, target_port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority = trustme.CA()
        authority.issue_cert("127.0.0.1").configure_cert(self._context)
        authority.configure_trust(self._context)
        self._context.verify_mode = ssl.CERT_REQUIRED
        authority.cert_pem.write_to_path(folder / "ca.pem")
        authority.issue_cert("worker.example").private_key_and_cert_chain_pem.write_to_path(folder / "us.pem")

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0, ssl=self._context)
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    sink.close()


@pytest.fixture
async def guarded(own_redis: RedisHandle, tmp_path: Path) -> AsyncIterator[str]:
    """The end of a ``rediss://`` URL: host, port, database, certificates."""
    admin = redis.asyncio.Redis.from_url(own_redis.url)
    await admin.execute_command("ACL", "SETUSER", USER, *RULES)
    await admin.execute_command("ACL", "SETUSER", "default", "off")
    await admin.aclose()
    front = TlsFront(tmp_path / "tls", int(own_redis.url.rsplit(":", 1)[1].split("/")[0]))
    async with front as port:
        ours = f"ssl_certfile={front.folder}/us.pem&ssl_keyfile={front.folder}/us.pem"
        yield f"127.0.0.1:{port}/0?ssl_ca_certs={front.folder}/ca.pem&{ours}"


async def test_a_worker_works_by_tls_with_a_certificate_as_a_user(
    guarded: str, worker_factory: WorkerFactory
) -> None:
    worker = await worker_factory(partitions=2, redis_url=f"rediss://{USER}:{PASSWORD}@{guarded}")
    async with Client() as client:
        job = await client.enqueue(worker.url, "safe")
        (claimed,) = await client.fetch(worker.url, ["safe"])
        assert claimed["id"] == job["id"]
    assert PASSWORD not in worker.log.read_text()


async def test_a_wrong_password_and_no_certificate_are_refused(guarded: str) -> None:
    for opened in (open_redis, open_reads):
        wrong = opened(f"rediss://{USER}:wrong@{guarded}")
        with pytest.raises(AuthenticationError):
            await wrong.ping()
        await wrong.aclose()
        without = opened(f"rediss://{USER}:{PASSWORD}@{guarded.split('&', maxsplit=1)[0]}")
        with pytest.raises((RedisError, OSError)):
            await without.ping()
        await without.aclose()
