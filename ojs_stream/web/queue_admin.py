"""Views that create, configure, purge and delete queues (OJS.md 5.6, 6.3)."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from ojs_stream import stamp
from ojs_stream.core.commands import Configure, DeleteQueue, Purge
from ojs_stream.core.config_body import ConfigBody, parse_config_body, parse_new_queue
from ojs_stream.core.config_shown import shown
from ojs_stream.core.names import DEFAULT_CONFIG
from ojs_stream.core.queue_bodies import PurgeBody, parse_delete, parse_purge
from ojs_stream.core.states import State
from ojs_stream.web.admin import queue_detail
from ojs_stream.web.answer import Answer
from ojs_stream.web.middleware import Call
from ojs_stream.web.queues import in_force, name_of
from ojs_stream.web.replays import replay_of, told
from ojs_stream.web.responses import API

# ------------------------------------------------------------------ configuration


async def create(call: Call) -> Answer:
    """POST /queues ``{name, config}`` -> 201 with the queue; 409 if there is one of that name."""
    data = await call.body()
    name, body = parse_new_queue(data)
    command = structs.replace(
        _change(call, name, body, whole=True), create=True, **replay_of(call, "queues", data)
    )
    outcome = await call.submit(call.site.home_of(name), command)
    return call.json(await _told(call, name), 201, location=f"{API}/queues/{name}", **told(outcome))


async def put(call: Call) -> Answer:
    """PUT /queues/{name} ``{config}`` -> the queue, new or not; its whole configuration is replaced."""
    name = name_of(call)
    await _configure(call, name, parse_config_body(name, await call.body()), whole=True)
    return call.json(await _told(call, name))


async def put_config(call: Call) -> Answer:
    """PUT /queues/{name}/config -> what is in force now; fields that are not named stay, ``null`` unsets one."""
    name = config_name_of(call)
    await _configure(call, name, parse_config_body(name, await call.body()))
    return call.json(await _config(call, name))


async def get_config(call: Call) -> Answer:
    """GET /queues/{name}/config -> ``{name, config, own, version}``: what is in force, what it says itself."""
    return call.json(await _config(call, config_name_of(call)))


async def put_admin_config(call: Call) -> Answer:
    """PUT /admin/queues/{name}/config -> the queue, with what its configuration says at the top as well."""
    name = name_of(call)
    await _configure(call, name, parse_config_body(name, await call.body()))
    return call.json(await _told(call, name))


async def _configure(call: Call, name: str, body: ConfigBody, *, whole: bool = False) -> None:
    await call.submit(call.site.home_of(name), _change(call, name, body, whole=whole))


def _change(call: Call, name: str, body: ConfigBody, *, whole: bool = False) -> Configure:
    return Configure(queue=name, config=body.config, names=body.names, replace=whole, **call.base)


async def _config(call: Call, name: str) -> dict[str, Any]:
    (own,) = await call.ctx.queries.queues.own_configs((name,))
    (config,) = await call.ctx.queries.queues.configs((name,))
    return {
        "name": name,
        "queue": name,
        **shown(own),
        "config": in_force(call, config),
        "own": shown(own),
        "version": own.version if own else 0,
        "updated_at": own.updated_at if own else None,
        "draining": bool(own and own.draining),
    }


async def _told(call: Call, name: str) -> dict[str, Any]:
    return {**await queue_detail(call, name), **await _config(call, name)}


def config_name_of(call: Call) -> str:
    """The queue of the path, or the template ``_default``."""
    return DEFAULT_CONFIG if call.path("name") == DEFAULT_CONFIG else name_of(call)


# ------------------------------------------------------------------ purge and delete


async def purge(call: Call) -> Answer:
    """POST /queues/{name}/purge ``{states?, older_than?}`` -> ``{queue, purged_count, deleted, states}``."""
    name = name_of(call)
    body = parse_purge(await call.body(), stamp.now_ms(), careful=False)
    count = await _purge(call, name, body)
    return call.json({"queue": name, "purged_count": count, "deleted": count, "states": body.states})


async def purge_admin(call: Call) -> Answer:
    """DELETE /admin/queues/{name}/jobs ``{states, older_than?, confirm: true}`` -> ``{purged_count, states}``."""
    name = name_of(call)
    body = parse_purge(await call.body(), stamp.now_ms(), careful=True)
    return call.json({"queue": name, "purged_count": await _purge(call, name, body), "states": body.states})


async def _purge(call: Call, name: str, body: PurgeBody) -> int:
    return sum([await _purge_state(call, name, state, body.before) for state in body.states])


async def _purge_state(call: Call, name: str, state: State, before: int) -> int:
    """One command removes a bounded number of jobs: again, until there are no more."""
    home, count = call.site.home_of(name), 0
    while True:
        outcome = await call.submit(home, Purge(queue=name, state=state, before=before, **call.base))
        count += int(outcome.data["purged"])
        if not outcome.data["more"]:
            return count


async def delete(call: Call) -> Answer:
    """DELETE /queues/{name} ``{strategy, target_queue?}`` -> 200 when it is gone, 202 while it is emptied."""
    name = name_of(call)
    body = parse_delete(name, await call.body())
    command = DeleteQueue(queue=name, strategy=body.strategy, target=body.target, **call.base)
    outcome = await call.submit(call.site.home_of(name), command)
    gone = bool(outcome.data["deleted"])
    answer: dict[str, Any] = {
        "queue": name,
        "name": name,
        "strategy": body.strategy,
        "jobs_affected": outcome.data["jobs_affected"],
        "state": "deleted" if gone else "draining",
        "deleted": gone,
    }
    if body.target:
        answer["target_queue"] = body.target
    return call.json(answer, 200 if gone else 202)
