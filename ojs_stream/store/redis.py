"""Records in Redis. Lua does one thing: compare ``applied``, then run the writes it was given."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec
from redis.exceptions import NoScriptError, RedisError

from ojs_stream.core.records import HomeState, Key, decode_record, key_of_member
from ojs_stream.core.world import Needs, World
from ojs_stream.errors import FencedError, UnavailableError
from ojs_stream.store import keys
from ojs_stream.store.base import Dump, LoadRequest, is_state, is_string
from ojs_stream.store.commit import EVENTS_MAX, OUTCOME_S, Acked, Commit
from ojs_stream.store.connections import IO_TIMEOUT_S

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import Pipeline

COMMIT_LUA = """\
local applied = redis.call('GET', KEYS[1])
if (applied or '') ~= ARGV[1] then return applied or '' end
local i = 2
while i <= #ARGV do
  local n = tonumber(ARGV[i])
  redis.call(unpack(ARGV, i + 1, i + n))
  i = i + n + 1
end
return 'committed'
"""
COMMIT_SHA = hashlib.sha1(COMMIT_LUA.encode()).hexdigest()  # noqa: S324 - Redis names scripts by SHA-1
ARGUMENTS_MAX = 4_000
"""Values in one write command: Lua's unpack ends near 8,000."""
HEAD_SLACK = 16
"""Entries read beyond what was asked: skipped ones (expired, claimed in the round) need no second read."""
SCAN_COUNT = 1_000
READ_KEYS_MAX = 500
"""Keys that are read in one transaction: nothing else runs in Redis meanwhile."""
_state_decoder = msgspec.json.Decoder(HomeState)
_acked_decoder = msgspec.json.Decoder(Acked)


def _chunks(values: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def write_commands(commit: Commit) -> Iterator[list[Any]]:
    """The Redis commands of a commit: absolute, variadic, deletes first."""
    for chunk in _chunks(commit.deletes, ARGUMENTS_MAX):
        yield ["UNLINK", *chunk]
    gone = [name for name, value in commit.strings.items() if value is None]
    for chunk in _chunks(gone, ARGUMENTS_MAX):
        yield ["UNLINK", *chunk]
    for name, members in commit.zsets.items():
        yield from _zset_commands(name, members)
    for name, fields in commit.hashes.items():
        yield from _hash_commands(name, fields)
    for name, value in commit.expiring.items():
        yield ["SET", name, value, "EX", str(OUTCOME_S)]
    # ``applied`` is the last string: a script that Redis breaks off before must not look committed.
    pairs = [part for item in commit.strings.items() if item[1] is not None for part in item]
    for chunk in _chunks(pairs, ARGUMENTS_MAX):
        yield ["MSET", *chunk]


def _zset_commands(name: str, members: dict[str, int | None]) -> Iterator[list[Any]]:
    gone = [member for member, score in members.items() if score is None]
    for chunk in _chunks(gone, ARGUMENTS_MAX):
        yield ["ZREM", name, *chunk]
    placed = [part for member, score in members.items() if score is not None for part in (str(score), member)]
    for chunk in _chunks(placed, ARGUMENTS_MAX):
        yield ["ZADD", name, *chunk]


def _hash_commands(name: str, fields: dict[str, bytes | None]) -> Iterator[list[Any]]:
    gone = [field for field, value in fields.items() if value is None]
    for chunk in _chunks(gone, ARGUMENTS_MAX):
        yield ["HDEL", name, *chunk]
    pairs = [part for item in fields.items() if item[1] is not None for part in item]
    for chunk in _chunks(pairs, ARGUMENTS_MAX):
        yield ["HSET", name, *chunk]


def _pairs(answer: list[Any]) -> list[tuple[int, str]]:
    """``ZRANGE ... WITHSCORES`` as (score, member), from RESP2 (flat) or RESP3 (pairs)."""
    if answer and isinstance(answer[0], list | tuple):
        return [(int(float(score)), member.decode()) for member, score in answer]
    return [(int(float(answer[i + 1])), answer[i].decode()) for i in range(0, len(answer), 2)]


class RedisStore:
    """The authoritative records (DESIGN.md sections 2 and 4)."""

    def __init__(self, redis: Redis, namespace: str) -> None:
        self._redis = redis
        self.namespace = namespace

    async def _run(self, work: Awaitable[Any]) -> Any:
        async with asyncio.timeout(IO_TIMEOUT_S):
            return await work

    async def position(self, home: int) -> tuple[int | None, HomeState | None]:
        """See ``Store``."""
        names = [keys.applied(self.namespace, home), keys.home_state(self.namespace, home)]
        applied, state = await self._run(self._redis.mget(names))
        return (
            None if applied is None else int(applied),
            None if state is None else _state_decoder.decode(state),
        )

    async def applied(self, homes: Sequence[int]) -> list[int | None]:
        """See ``Store``."""
        pipe = self._redis.pipeline(transaction=False)
        for home in homes:
            pipe.get(keys.applied(self.namespace, home))
        found = await self._run(pipe.execute())
        return [None if value is None else int(value) for value in found]

    # -- load ---------------------------------------------------------------------------------------------

    async def load(self, requests: Sequence[LoadRequest]) -> None:
        """See ``Store``: one pipeline for all worlds, a second one for records that indexes name."""
        requests = [(world, world.missing(needs)) for world, needs in requests]
        followed = await self._load_pass(requests)
        if followed:
            await self._load_pass([(world, world.missing(needs)) for world, needs in followed])
        for world, needs in requests:
            if needs.everything:
                world.all_keys = await self._names(world.home)

    async def _load_pass(self, requests: Sequence[LoadRequest]) -> list[LoadRequest]:
        pipe = self._redis.pipeline(transaction=False)
        plan = [(world, needs, *self._ask(pipe, world.home, needs)) for world, needs in requests]
        if not len(pipe):
            return []
        answers = iter(await self._run(pipe.execute()))
        followed: list[LoadRequest] = []
        for world, needs, records, heads in plan:
            if records:
                self._take_records(world, records, next(answers))
            more = Needs()
            for index, count in heads:
                entries = _pairs(next(answers))
                world.add_head(index, entries, complete=len(entries) < count)
                if index in needs.follow:
                    more.records.update(key_of_member(member) for _, member in entries)
            if records or heads:
                applied = next(answers)
                world.found.add(None if applied is None else int(applied))
            if more:
                followed.append((world, more))
        return followed

    @staticmethod
    def _take_records(world: World, wanted: list[Key], found: list[bytes | None]) -> None:
        for key, data in zip(wanted, found, strict=True):
            world.add_record(key, None if data is None else decode_record(key, data))

    def _ask(self, pipe: Pipeline, home: int, needs: Needs) -> tuple[list[Key], list[tuple[Key, int]]]:
        records = list(needs.records)
        if records:
            pipe.execute_command("MGET", *[keys.record(self.namespace, home, key) for key in records])
        heads = [(index, count + HEAD_SLACK) for index, count in needs.heads.items()]
        for index, count in heads:
            name = keys.record(self.namespace, home, index)
            pipe.execute_command("ZRANGE", name, 0, count - 1, "WITHSCORES")
        if records or heads:
            # Last: what was read before it is not newer than it.
            pipe.get(keys.applied(self.namespace, home))
        return records, heads

    async def _names(self, home: int) -> frozenset[str]:
        prefix = keys.home_prefix(self.namespace, home)
        kept = {"applied", "home"}
        found = [name async for name in self._scan(prefix)]
        names = (name[len(prefix) :] for name in found)
        return frozenset(prefix + name for name in names if name not in kept and is_state(name))

    async def _scan(self, prefix: str) -> Any:
        pattern = prefix.replace("[", r"\[").replace("?", r"\?").replace("*", r"\*") + "*"
        async for name in self._redis.scan_iter(match=pattern, count=SCAN_COUNT):
            yield name.decode()

    # -- commit -------------------------------------------------------------------------------------------

    async def commit(self, commits: Sequence[Commit]) -> list[Exception | None]:
        """See ``Store``: one pipeline of fenced writes."""
        try:
            results = await self._commit_pass(commits)
        except (RedisError, OSError, TimeoutError) as error:
            unknown = UnavailableError(f"Redis did not answer a commit: {error}", unknown=True)
            return [unknown for _ in commits]
        return [self._judge(commit, result) for commit, result in zip(commits, results, strict=True)]

    async def _commit_pass(self, commits: Sequence[Commit]) -> list[Any]:
        pipe = self._redis.pipeline(transaction=False)
        for commit in commits:
            pipe.execute_command("EVALSHA", COMMIT_SHA, 1, *self._arguments(commit))
        results = await self._run(pipe.execute(raise_on_error=False))
        if any(isinstance(result, NoScriptError) for result in results):
            await self._run(cast("Awaitable[Any]", self._redis.script_load(COMMIT_LUA)))
            missing = [i for i, result in enumerate(results) if isinstance(result, NoScriptError)]
            again = self._redis.pipeline(transaction=False)
            for i in missing:
                again.execute_command("EVALSHA", COMMIT_SHA, 1, *self._arguments(commits[i]))
            for i, result in zip(missing, await self._run(again.execute(raise_on_error=False)), strict=True):
                results[i] = result
        return cast("list[Any]", results)

    def _arguments(self, commit: Commit) -> list[Any]:
        arguments: list[Any] = [
            keys.applied(self.namespace, commit.home),
            "" if commit.expected is None else str(commit.expected),
        ]
        for command in write_commands(commit):
            arguments.append(len(command))
            arguments.extend(command)
        return arguments

    @staticmethod
    def _judge(commit: Commit, result: Any) -> Exception | None:
        if result == b"committed":
            return None
        if isinstance(result, Exception):
            return UnavailableError(f"Redis refused a commit of home {commit.home}: {result}", unknown=True)
        found = result.decode() if isinstance(result, bytes) else result
        return FencedError(f"home {commit.home}: expected applied {commit.expected}, found {found or 'nothing'}")

    # -- take-over and checks -----------------------------------------------------------------------------

    async def clear(self, home: int, expected: int | None) -> None:
        """See ``Store``: a fenced write a chunk."""
        names = [name async for name in self._scan(keys.home_prefix(self.namespace, home))]
        # ``applied`` goes last: it is the fence of all chunks before.
        names.sort(key=keys.applied(self.namespace, home).__eq__)
        for chunk in _chunks(names, ARGUMENTS_MAX):
            (error,) = await self.commit([Commit(home=home, expected=expected, deletes=chunk)])
            if error is not None:
                raise error

    async def forget_position(self, home: int) -> int | None:
        """Drop ``applied``: whoever owns the home must fold it anew. Gives the offset that it was."""
        found = await self._run(self._redis.getdel(keys.applied(self.namespace, home)))
        return None if found is None else int(found)

    async def is_empty(self, home: int) -> bool:
        """Whether there is no key of the home at all."""
        async for _ in self._scan(keys.home_prefix(self.namespace, home)):
            return False
        return True

    async def acked(self, home: int) -> Acked:
        """See ``Store``."""
        data = await self._run(self._redis.get(keys.acked(self.namespace, home)))
        return Acked() if data is None else _acked_decoder.decode(data)

    async def outbox(self, home: int) -> dict[str, bytes]:
        """See ``Store``."""
        name = keys.outbox(self.namespace, home)
        found = await self._run(cast("Awaitable[Any]", self._redis.hgetall(name)))
        return {field.decode(): value for field, value in found.items()}

    async def ring(self, home: int, first: int, last: int) -> list[tuple[int, bytes]]:
        """See ``Store``."""
        numbers = list(range(max(first, last - EVENTS_MAX + 1, 1), last + 1))
        if not numbers:
            return []
        slots = [str(number % EVENTS_MAX) for number in numbers]
        name = keys.events(self.namespace, home)
        values = await self._run(cast("Awaitable[Any]", self._redis.hmget(name, slots)))
        return [(number, data) for number, data in zip(numbers, values, strict=True) if data is not None]

    async def earliest(self, home: int, index: str) -> int | None:
        """See ``Store``."""
        name = keys.record(self.namespace, home, ("due", index))
        found = _pairs(await self._run(self._redis.zrange(name, 0, 0, withscores=True)))
        return found[0][0] if found else None

    async def dump(self, home: int) -> Dump:
        """See ``Store``."""
        found: Dump = {}
        async for names in self.names(home):
            found.update((await self.read_at_once(home, names))[1])
        return found

    async def names(self, home: int) -> AsyncIterator[list[str]]:
        """The keys of the home's logical content (without prefix), in bounded lists; one may stand in two."""
        prefix = keys.home_prefix(self.namespace, home)
        names: list[str] = []
        async for name in self._scan(prefix):
            if is_state(name[len(prefix) :]):
                names.append(name[len(prefix) :])
            if len(names) >= READ_KEYS_MAX:
                yield names
                names = []
        if names:
            yield names

    async def read_at_once(self, home: int, names: Sequence[str]) -> tuple[int | None, Dump]:
        """What the keys hold, and the offset that it is true for: both of one moment."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.get(keys.applied(self.namespace, home))
        for name in names:
            command, *arguments = _read_of(name)
            pipe.execute_command(command, keys.home_prefix(self.namespace, home) + name, *arguments)
        applied, *answers = await self._run(pipe.execute())
        found = {name: _content(name, answer) for name, answer in zip(names, answers, strict=True) if answer}
        return None if applied is None else int(applied), found


def _read_of(name: str) -> tuple[str, ...]:
    """The Redis command (and what follows the key in it) that reads a key of this name."""
    if is_string(name):
        return ("GET",)
    return ("HGETALL",) if name == "events" else ("ZRANGE", "0", "-1", "WITHSCORES")


def _content(name: str, answer: Any) -> Any:
    if is_string(name):
        return answer
    if name == "events":
        return {field.decode(): value for field, value in answer.items()}
    return {member: score for score, member in _pairs(answer)}
