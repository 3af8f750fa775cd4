"""The long run's tool, for a few seconds: its parts work. What grows is judged by `make soak`, not here."""

from __future__ import annotations

from pathlib import Path

import orjson

from tests.conftest import WorkerFactory
from tests.support.servers import BrokerHandle, RedisHandle
from tools.bench.servers import Servers
from tools.soak.__main__ import retention
from tools.soak.report import judge, write_json
from tools.soak.run import Plan, Soak

PLAN = Plan(seconds=6.0, rate_per_s=20.0, retention_s=2.0, capacity_s=2.0, sample_s=2.0, actors=6)
JUDGED = ("every answer is a 2xx", "of jobs that have ended nothing is left behind")


async def test_a_short_soak_measures_samples_and_leaves_nothing_behind(
    worker_factory: WorkerFactory,
    kafka: BrokerHandle,
    own_redis: RedisHandle,
    namespace: str,
    tmp_path: Path,
) -> None:
    settings = {"partitions": 4, "redis_url": own_redis.url, "env": retention(2)}
    workers = [await worker_factory(**settings), await worker_factory(**settings)]
    servers = Servers(
        workers=[worker._worker for worker in workers],
        brokers=kafka.bootstrap,
        redis_url=own_redis.url,
        namespace=namespace,
        partitions=4,
    )
    said: list[str] = []
    found = await Soak(servers, PLAN, lambda what, _at_s: said.append(what)).run()
    checks = judge(found)
    assert len(found.samples) == 3
    assert found.capacity_per_s > 0
    assert found.total.lives > 0
    operations = {operation for operation, _ in found.total.answers}
    assert {"enqueue", "fetch", "ack", "heartbeat", "cron"} <= operations
    for sample in found.samples:
        assert min(*sample.rss_mib.values(), *sample.fds.values(), *sample.loop_wait_ms.values()) > 0
        assert sample.kinds["job:*"].keys > 0
    assert [(check.name, check.found) for check in checks.made if check.name in JUDGED and not check.passed] == []
    write_json(found, PLAN, checks, tmp_path / "soak.json")
    assert len(orjson.loads((tmp_path / "soak.json").read_bytes())["checks"]) == len(checks.made)
    assert said[0] == "measuring capacity"
