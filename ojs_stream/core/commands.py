"""What can be asked of a home. A command is one JSON object with a ``kind``; a pack carries many.

Whatever a default comes from, the view has resolved it: the fold knows no settings (DESIGN.md section 2).
Adding a command: its struct here (the union below is the codec's row), its handler in ``core/fold``, its view.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Raw, Struct, UnsetType

from ojs_stream.core.records import (
    DEFAULT_RETENTION,
    CheckpointRecord,
    ConfigRecord,
    ErrorEntry,
    Flow,
    Hold,
    JobRecord,
    Key,
    LimitRule,
    Maintenance,
    OverlapPolicy,
    Override,
    Pressure,
    Retention,
    UniqueRule,
    Verdict,
    Watcher,
    is_told_of,
)
from ojs_stream.core.retry import DEFAULT_POLICY, RetryPolicy
from ojs_stream.core.states import State

COMMAND_VERSION = 1


class Command(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """What every command carries.

    ``v`` is the version of its shape, ``actor`` the id of the API key (or ``system``), ``request`` the
    request id, ``submit`` (``<instance>:<n>``) who waits for the outcome. ``source`` and ``number`` make it a
    message that is folded once; ``at`` is then the record time of the first command of the chain.
    """

    v: int
    actor: str
    request: str = ""
    submit: str = ""
    source: str = ""
    number: int = 0
    at: int = 0
    epoch: int = 0


class BadCommand(Struct, frozen=True):
    """What could not be decoded, in a command's place; it goes to the dead topic with its reason."""

    data: bytes
    reason: str


class NewJob(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A validated job to enqueue. Durations in ms; an instant is absolute ms or relative to the record time.

    What most jobs share is not written: half of each job in the log would be that. A default here is therefore
    a part of the log's format: it may never change.
    """

    id: str
    type: str
    queue: str
    args: Raw
    meta: Raw
    priority: int
    retry: RetryPolicy = DEFAULT_POLICY
    retention: Retention = DEFAULT_RETENTION
    timeout_ms: int
    visibility_timeout_ms: int
    client_id: bool = False
    pending: bool = False
    scheduled_at: str | None = None
    scheduled: int = 0
    delay_ms: int = 0
    expires_at: str | None = None
    expires: int = 0
    expires_in_ms: int = 0
    total_timeout_ms: int = 0
    extra: Raw | UnsetType = UNSET
    given: tuple[str, ...] = ()
    """Which fields that a queue's configuration may fill in the client has set itself."""
    unique: UniqueRule | None = None
    limit: LimitRule | None = None
    watchers: tuple[Watcher, ...] = ()
    workflow_id: str | None = None
    workflow_step: str | None = None
    parent_results: Raw | UnsetType = UNSET


class Rejection(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why one job of a partial enqueue is not stored."""

    code: str
    message: str
    details: dict[str, Any] = {}


class Genesis(Command, frozen=True, kw_only=True, omit_defaults=True, tag="genesis"):
    """The first record of a partition: it names the log."""

    log_id: str
    partitions: int


class Reset(Command, frozen=True, kw_only=True, omit_defaults=True, tag="reset"):
    """Forget every record and start a new epoch (test mode)."""


class Enqueue(Command, frozen=True, kw_only=True, omit_defaults=True, tag="enqueue"):
    """Store jobs: all or none, or each for itself (``partial``). Any home may decide (``fold/enqueue.py``).

    It comes from a view, or as a message: from a workflow for its next steps, from a cron entry.
    """

    jobs: tuple[NewJob, ...]
    batch: bool = False
    partial: bool = False
    replay: str = ""
    """The client's ``Idempotency-Key``: the home that decides is hash(key)."""
    body: str = ""
    """A hash of the request under that key: another request with it is refused."""
    rejected: dict[str, Rejection] = {}
    """Of a partial one: by place in the request what the view has refused, so that the outcome tells all of it."""


class Reserve(Command, frozen=True, kw_only=True, omit_defaults=True, tag="reserve"):
    """Message: hold what the jobs of a stage of ``home`` need here. ``partial``: a no is to one job alone."""

    stage: str
    home: int
    holds: tuple[Hold, ...]
    partial: bool = False


class Reserved(Command, frozen=True, kw_only=True, omit_defaults=True, tag="reserved"):
    """Message: the answer to ``reserve``: verdicts on jobs that got a no, or an existing job instead."""

    stage: str
    home: int
    verdicts: tuple[Verdict, ...] = ()
    pressure: Pressure | None = None


class Settle(Command, frozen=True, kw_only=True, omit_defaults=True, tag="settle"):
    """Message: the stage is decided. Its jobs are ``stored``, or what it held for them here is free again."""

    stage: str
    holds: tuple[Hold, ...]
    stored: bool = False


class Release(Command, frozen=True, kw_only=True, omit_defaults=True, tag="release"):
    """Message: the job is gone: forget its id or its ``moved`` note."""

    ids: tuple[str, ...]


class Insert(Command, frozen=True, kw_only=True, omit_defaults=True, tag="insert"):
    """Message: jobs that another home has decided on, for the home of their queues."""

    jobs: tuple[NewJob, ...]
    stage: str = ""
    """Whose rooms are used now, if any were held."""
    locks: tuple[Hold, ...] = ()
    """What the stage holds for the jobs at further homes: they are told when the jobs are here, not before."""


class Revise(Command, frozen=True, kw_only=True, omit_defaults=True, tag="revise"):
    """Message: a unique job that waits takes the contents of ``job``, and keeps its own id and schedule."""

    job_id: str
    job: NewJob


class JobNote(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a watcher is told of a job: the state it is in now (``removed``: its record is gone)."""

    id: str
    home: int
    queue: str
    state: State | Literal["removed", "refused"]
    at: int
    """When it changed (ms)."""
    created: int = 0
    score: int = 0
    """Its place in its queue (see ``ready_score``)."""
    ask: int = 0
    held: bool = False
    """It is available and waits for a slot of its limit: this is its ``ask``."""
    unique: UniqueRule | None = None
    limit: LimitRule | None = None
    result: Raw | UnsetType = UNSET
    error: ErrorEntry | None = None
    reason: str = ""
    """Why it was refused."""


class Watched(Command, frozen=True, kw_only=True, omit_defaults=True, tag="watched"):
    """Message to a watcher: its job has changed its state."""

    watcher: Watcher
    note: JobNote


class Claim(Command, frozen=True, kw_only=True, omit_defaults=True, tag="claim"):
    """Lease up to ``count`` jobs, queues from left to right. ``visibility_ms`` overrides the job's own."""

    queues: tuple[str, ...]
    count: int
    worker_id: str = ""
    visibility_ms: int = 0


class Ack(Command, frozen=True, kw_only=True, omit_defaults=True, tag="ack"):
    """The job is done. ``worker_id`` is checked only when it is sent."""

    job_id: str
    worker_id: str = ""
    result: Raw | UnsetType = UNSET


class Nack(Command, frozen=True, kw_only=True, omit_defaults=True, tag="nack"):
    """The job failed (OJS.md 3.3). ``dice`` is the jitter."""

    job_id: str
    code: str
    type: str
    message: str
    dice: float
    worker_id: str = ""
    retryable: bool | None = None
    details: Raw | UnsetType = UNSET
    backtrace: Raw | UnsetType = UNSET
    error_class: str = ""
    requeue: bool = False
    limit_until: int = 0
    """``rate_limit_until`` in ms: no job of the same limit before this instant."""


class GiveBack(Command, frozen=True, kw_only=True, omit_defaults=True, tag="give_back"):
    """The client was gone when its claim returned: the jobs become available in their old places."""

    job_ids: tuple[str, ...]
    worker_id: str = ""


class Extend(Command, frozen=True, kw_only=True, omit_defaults=True, tag="extend"):
    """Heartbeat for leases of this home: now + the job's own visibility timeout, or ``visibility_ms``."""

    worker_id: str
    job_ids: tuple[str, ...]
    visibility_ms: int = 0


class Report(Command, frozen=True, kw_only=True, omit_defaults=True, tag="report"):
    """A worker says how far its job is. It never fails: what comes too late is ignored."""

    job_id: str
    worker_id: str = ""
    fraction: float | None = None
    """From 0 to 1."""
    message: str | None = None
    data: Raw | UnsetType = UNSET


class SaveCheckpoint(Command, frozen=True, kw_only=True, omit_defaults=True, tag="save_checkpoint"):
    """Keep what the next attempt of a job needs to go on; it replaces what was kept before."""

    job_id: str
    state: Raw
    worker_id: str = ""
    step_index: int | None = None
    metadata: Raw | UnsetType = UNSET


class DropCheckpoint(Command, frozen=True, kw_only=True, omit_defaults=True, tag="drop_checkpoint"):
    """Forget a job's checkpoint; nothing, if it has none."""

    job_id: str


class Cancel(Command, frozen=True, kw_only=True, omit_defaults=True, tag="cancel"):
    """A client wants the job ended, whatever it does."""

    job_id: str
    reason: str = ""


class Activate(Command, frozen=True, kw_only=True, omit_defaults=True, tag="activate"):
    """A pending job may be worked on."""

    job_id: str


class Reprioritize(Command, frozen=True, kw_only=True, omit_defaults=True, tag="reprioritize"):
    """Another priority for a job that waits; it keeps its age among the jobs of that priority."""

    job_id: str
    priority: int


class RetryJob(Command, frozen=True, kw_only=True, omit_defaults=True, tag="retry_job"):
    """An operator wants the job tried again: a discarded or cancelled one anew, a retryable one at once."""

    job_id: str


BulkAction = Literal["cancel", "retry", "delete"]


class Bulk(Command, frozen=True, kw_only=True, omit_defaults=True, tag="bulk"):
    """The same for many jobs of this home, at most 1,000. What is not in one of ``states`` is skipped."""

    action: BulkAction
    job_ids: tuple[str, ...]
    states: tuple[State, ...]
    reason: str = ""


class Promote(Command, frozen=True, kw_only=True, omit_defaults=True, tag="promote"):
    """From the retry agent: this attempt's backoff has elapsed."""

    job_id: str
    attempt: int


class Tick(Command, frozen=True, kw_only=True, omit_defaults=True, tag="tick"):
    """Move what is due at the record's time: ``run`` (scheduled, retryable) or ``reap`` (everything else)."""

    index: str
    dice: float


class Pause(Command, frozen=True, kw_only=True, omit_defaults=True, tag="pause"):
    """No more claims from a queue."""

    queue: str


class Resume(Command, frozen=True, kw_only=True, omit_defaults=True, tag="resume"):
    """Claims from a queue again."""

    queue: str


class Beat(Command, frozen=True, kw_only=True, omit_defaults=True, tag="beat"):
    """What a worker says of itself."""

    worker_id: str
    state: str = ""
    hostname: str | None = None
    pid: int | None = None
    concurrency: int | None = None
    queues: tuple[str, ...] = ()
    active_jobs: int = 0
    labels: Raw | UnsetType = UNSET
    version: str | None = None
    dead_after_ms: int = 30_000
    keep_ms: int = 86_400_000


class Direct(Command, frozen=True, kw_only=True, omit_defaults=True, tag="direct"):
    """Ask a worker to be ``running``, ``quiet`` or to ``terminate``; told at its next heartbeat."""

    worker_id: str
    directive: str


class RemoveWorker(Command, frozen=True, kw_only=True, omit_defaults=True, tag="remove_worker"):
    """A worker signs off. Its leases stay: they end by ack or by their visibility timeout."""

    worker_id: str


class WorkerDied(Command, frozen=True, kw_only=True, omit_defaults=True, tag="worker_died"):
    """Message to every home: the leases of a worker that stopped beating go back."""

    worker_id: str


class RetryDead(Command, frozen=True, kw_only=True, omit_defaults=True, tag="retry_dead"):
    """Put a dead letter back to work, optionally changed."""

    job_id: str
    queue: str = ""
    args: Raw | UnsetType = UNSET
    meta: Raw | UnsetType = UNSET
    priority: int | None = None
    retry: RetryPolicy | None = None


class DeleteDead(Command, frozen=True, kw_only=True, omit_defaults=True, tag="delete_dead"):
    """Forget a dead letter."""

    job_id: str


class Adopt(Command, frozen=True, kw_only=True, omit_defaults=True, tag="adopt"):
    """Message: a job that comes from another home, in the state of its record, for a queue here or on its way."""

    record: JobRecord
    before: State | None = "discarded"
    """The state that it left when it moved; ``None``: it is as it was."""
    route: tuple[int, ...] = ()
    """Homes that it passes by first: those of its watchers, so that its notes reach them in order."""
    checkpoint: CheckpointRecord | None = None
    """It goes where its job goes."""


class PutCron(Command, frozen=True, kw_only=True, omit_defaults=True, tag="put_cron"):
    """Register a cron entry, or change one (``changes``: only that version of it)."""

    name: str
    expression: str
    timezone: str
    overlap: OverlapPolicy
    job: NewJob
    template: Raw
    anchor: int
    next_at: int
    """The first instant of the schedule after now, 0 if there is none."""
    enabled: bool | None = None
    """``None``: as it is, and a new one is enabled."""
    description: str | None = None
    changes: int = 0
    replay: str = ""
    """The client's ``Idempotency-Key``; it is remembered at the entry's home."""
    body: str = ""
    """A hash of the request under that key."""


class SwitchCron(Command, frozen=True, kw_only=True, omit_defaults=True, tag="switch_cron"):
    """Pause a cron entry, or let it fire again: ``next_at`` is of its ``version`` then."""

    name: str
    enabled: bool
    next_at: int = 0
    version: int = 0


class DeleteCron(Command, frozen=True, kw_only=True, omit_defaults=True, tag="delete_cron"):
    """Forget a cron entry; its jobs stay."""

    name: str


class TriggerCron(Command, frozen=True, kw_only=True, omit_defaults=True, tag="trigger_cron"):
    """Run a cron entry now, whatever its schedule says."""

    name: str
    replay: str = ""
    """The client's ``Idempotency-Key``; it is remembered at this home."""
    body: str = ""
    """A hash of the request under that key."""


class Fire(Command, frozen=True, kw_only=True, omit_defaults=True, tag="fire"):
    """From the cron timer: ``tick`` is the latest instant of the version's schedule, ``next_at`` the next."""

    name: str
    tick: int
    next_at: int
    version: int
    missed: int = 0
    """So many instants since the entry's ``next_at`` have passed before ``tick``."""


class Configure(Command, frozen=True, kw_only=True, omit_defaults=True, tag="configure"):
    """Set the configuration of a queue, or of the template ``_default``, at its home."""

    queue: str
    config: ConfigRecord
    names: tuple[str, ...] = ()
    """The fields of ``config`` that count."""
    replace: bool = False
    """All other fields of its configuration are unset."""
    create: bool = False
    """Refused if the queue exists."""
    replay: str = ""
    """The client's ``Idempotency-Key``; it is remembered at this home."""
    body: str = ""
    """A hash of the request under that key."""


class Drain(Command, frozen=True, kw_only=True, omit_defaults=True, tag="drain"):
    """No more jobs from clients for a queue; claims go on. ``resume`` ends it."""

    queue: str


class Configured(Command, frozen=True, kw_only=True, omit_defaults=True, tag="configured"):
    """Message to every other home: a queue's configuration is this now, or gone."""

    queue: str
    config: ConfigRecord | None = None


class Maintain(Command, frozen=True, kw_only=True, omit_defaults=True, tag="maintain"):
    """Begin or end maintenance, at the home of ``names.MAINTENANCE``. Said again, it changes what is told."""

    enabled: bool
    reason: str = ""
    length_ms: int = 0
    """How long it may take, as far as anybody knows; 0: nobody says."""


class Maintained(Command, frozen=True, kw_only=True, omit_defaults=True, tag="maintained"):
    """Message to every other home: maintenance as it is now, or none."""

    maintenance: Maintenance | None = None


class Purge(Command, frozen=True, kw_only=True, omit_defaults=True, tag="purge"):
    """Remove jobs of a queue that are in ``state``, at most 1,000 a command; the outcome says whether to go on."""

    queue: str
    state: State
    before: int = 0
    """Only those that entered a final state before this instant (ms); 0: all."""


class DeleteQueue(Command, frozen=True, kw_only=True, omit_defaults=True, tag="delete_queue"):
    """Delete a queue: refused while jobs wait or run in it, or these are discarded, or moved to ``target``."""

    queue: str
    strategy: Literal["reject", "discard", "move"]
    target: str = ""


class EmptyQueue(Command, frozen=True, kw_only=True, omit_defaults=True, tag="empty_queue"):
    """Message of a home to itself: go on with the deletion of a queue."""

    queue: str


class Grant(Command, frozen=True, kw_only=True, omit_defaults=True, tag="grant"):
    """Message from a limit: these jobs have slots. ``asks`` are pairs (job id, which ask of it)."""

    asks: tuple[tuple[str, int], ...]


class Ungrant(Command, frozen=True, kw_only=True, omit_defaults=True, tag="ungrant"):
    """Message from a limit: a slot was not used and others wait. The job gives it back unless it has started."""

    job_id: str
    ask: int


class Divert(Command, frozen=True, kw_only=True, omit_defaults=True, tag="divert"):
    """Message from a limit: there is no slot, and the job does not want to wait (``on_limit``)."""

    job_id: str
    ask: int
    key: str
    until: int = 0
    """When to ask again (ms); 0: the job is dropped."""


class LimitPause(Command, frozen=True, kw_only=True, omit_defaults=True, tag="limit_pause"):
    """Message to a limit: a job has learned that nothing may start before ``until`` (ms)."""

    key: str
    until: int
    reason: str = ""


class LimitOverride(Command, frozen=True, kw_only=True, omit_defaults=True, tag="limit_override"):
    """An operator puts something else in place of a limit's rule, or takes it away (``None``)."""

    key: str
    override: Override | None = None


class NewStep(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step of a new workflow: a ``job`` or a ``flow``. Its number is its place in the command."""

    id: str
    type: str
    parent: int = -1
    callback: str = ""
    depends: tuple[int, ...] = ()
    """Steps of the same flow that must complete first."""
    flow: Flow | None = None
    job: NewJob | None = None


class StartWorkflow(Command, frozen=True, kw_only=True, omit_defaults=True, tag="start_workflow"):
    """Store a workflow and start what depends on nothing. The members of every flow stand together."""

    id: str
    name: str
    flow: Flow
    steps: tuple[NewStep, ...]
    retention: Retention
    replay: str = ""
    """The client's ``Idempotency-Key``."""
    body: str = ""
    """A hash of the request under that key."""


class CancelWorkflow(Command, frozen=True, kw_only=True, omit_defaults=True, tag="cancel_workflow"):
    """A client wants a workflow ended, with all of its jobs."""

    id: str
    reason: str = ""


class CancelMembers(Command, frozen=True, kw_only=True, omit_defaults=True, tag="cancel_members"):
    """Message: jobs of a cancelled workflow, on the way that their enqueue took before."""

    job_ids: tuple[str, ...]
    reason: str = ""


class DropWorkflow(Command, frozen=True, kw_only=True, omit_defaults=True, tag="drop_workflow"):
    """Message of a home to itself: remove a part of a workflow whose retention is over."""

    id: str


class Entry(Struct, frozen=True, gc=False):
    """A record that comes from another log, as this home is to have it."""

    key: Key
    record: Raw


class ImportPart(Command, frozen=True, kw_only=True, omit_defaults=True, tag="import_part"):
    """From the import tool: records for this home, which has none yet; parts are numbered from 0 on."""

    id: str
    """What is imported: a hash of it."""
    part: int
    entries: tuple[Entry, ...]
    sequence: int = 0
    """The highest sequence that any of its homes had."""


class ImportEnd(Command, frozen=True, kw_only=True, omit_defaults=True, tag="import_end"):
    """From the import tool, once every home has all of its parts: work may begin."""

    id: str
    parts: int


LATER_KINDS: dict[type[Command], int] = {
    ImportPart: 2,
    ImportEnd: 2,
    Report: 2,
    SaveCheckpoint: 2,
    DropCheckpoint: 2,
    Maintain: 2,
    Maintained: 2,
    Adopt: 2,
}
"""Kinds that came later than ``COMMAND_VERSION``, or got a field: an older release must not put them aside."""


def version_of(command: Command) -> int:
    """The version that the command must carry: an older release could not read all that it says (ADR 12)."""
    if isinstance(command, Adopt) and not is_told_of(command.record.ctl):
        return COMMAND_VERSION
    return LATER_KINDS.get(type(command), COMMAND_VERSION)


AnyCommand = (
    Genesis
    | Reset
    | Enqueue
    | Reserve
    | Reserved
    | Settle
    | Release
    | Insert
    | Revise
    | Watched
    | Claim
    | Ack
    | Nack
    | GiveBack
    | Extend
    | Report
    | SaveCheckpoint
    | DropCheckpoint
    | Cancel
    | Activate
    | Reprioritize
    | RetryJob
    | Bulk
    | Promote
    | Tick
    | Pause
    | Resume
    | Beat
    | Direct
    | RemoveWorker
    | WorkerDied
    | RetryDead
    | DeleteDead
    | Adopt
    | PutCron
    | SwitchCron
    | DeleteCron
    | TriggerCron
    | Fire
    | Configure
    | Configured
    | Drain
    | Maintain
    | Maintained
    | Purge
    | DeleteQueue
    | EmptyQueue
    | Grant
    | Ungrant
    | Divert
    | LimitPause
    | LimitOverride
    | StartWorkflow
    | CancelWorkflow
    | CancelMembers
    | DropWorkflow
    | ImportPart
    | ImportEnd
)
