"""The stored entities of a home and the indexes that follow from them.

A record is one JSON string in Redis. Every index entry and every counter is a pure function of the
records, so a recount can always prove them (tests do).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from ojs_stream.core.retry import Exhaustion, RetryPolicy, Strategy
from ojs_stream.core.states import State

Key = tuple[str, ...]
"""A record or index of one home, such as ``("job", id)``; ``store/keys.py`` makes the Redis key of it."""

PRIORITY_MAX = 100
SEQUENCE_SPAN = 2**44
"""Room for the sequence below the priority in a ready score; exact in a double."""
ERRORS_MAX = 20
"""So many of the last failures a job remembers (OJS.md 1.3 asks for at least 10)."""
EMPTY_OBJECT = Raw(b"{}")


def own(raw: Raw | UnsetType) -> Raw | UnsetType:
    """A copy. What was decoded is a slice that keeps the whole log record alive, as long as the job is held."""
    return raw if raw is UNSET else raw.copy()


class ErrorEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One failure in a job's history (OJS.md 3.5). ``details`` and ``backtrace`` stay raw."""

    attempt: int
    code: str
    type: str
    message: str
    occurred_at: str
    timestamp: str
    retryable: bool | None = None
    details: Raw | UnsetType = UNSET
    backtrace: Raw | UnsetType = UNSET


class Job(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job as every client sees it (OJS.md 1). ``args``, ``meta``, ``result`` are never re-encoded."""

    specversion: str
    id: str
    type: str
    state: State
    queue: str
    args: Raw
    meta: Raw
    priority: int
    attempt: int
    max_attempts: int
    timeout_ms: int
    visibility_timeout_ms: int
    created_at: str
    enqueued_at: str | None = None
    scheduled_at: str | None = None
    expires_at: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    cancelled_at: str | None = None
    discarded_at: str | None = None
    activated_at: str | None = None
    re_enqueued_at: str | None = None
    next_attempt_at: str | None = None
    next_retry_at: str | None = None
    retry_delay_ms: int | None = None
    worker_id: str | None = None
    result: Raw | UnsetType = UNSET
    error: ErrorEntry | None = None
    errors: tuple[ErrorEntry, ...] = ()
    workflow_id: str | None = None
    workflow_step: str | None = None
    parent_results: Raw | UnsetType = UNSET


class Retention(Struct, frozen=True):
    """How long a record stays in each final state, in milliseconds (DESIGN.md section 13)."""

    completed_ms: int
    cancelled_ms: int
    discarded_ms: int
    dead_ms: int


_DAY_MS = 86_400_000
DEFAULT_RETENTION = Retention(7 * _DAY_MS, 7 * _DAY_MS, 30 * _DAY_MS, 180 * _DAY_MS)
"""As the settings have it, unless they say otherwise. The log leaves it out (``commands.NewJob``)."""


WatcherKind = Literal["lock", "limit", "workflow", "cron"]


class Watcher(Struct, frozen=True):
    """Who is told when a job changes its state: a record of some home (DESIGN.md section 4)."""

    kind: WatcherKind
    home: int
    name: str
    """The key of a lock or limit, a workflow's step as ``<workflow>:<step>``, the name of a cron entry."""


class UniqueRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What makes a job unique (OJS.md 5.3), resolved by the view. ``key`` is the fingerprint as hex text."""

    key: str
    home: int
    states: tuple[State, ...]
    period_ms: int = 0
    """Counted from the existing job's creation; 0: as long as it is in one of the states."""
    on_conflict: Literal["reject", "ignore", "replace", "replace_except_schedule"] = "reject"


class Window(Struct, frozen=True):
    """At most ``limit`` starts in ``period_ms``."""

    limit: int
    period_ms: int


class LimitRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A limit that a job is under (OJS.md 5.5), resolved by the view; ``None``: not limited in that way."""

    key: str
    home: int
    concurrency: int | None = None
    rate: Window | None = None
    throttle: Window | None = None
    on_limit: Literal["wait", "reschedule", "drop"] = "wait"


class Progress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a job's present attempt is, as its worker says (ojs-progress)."""

    at: int
    """When it was said (ms)."""
    fraction: float | None = None
    """From 0 to 1; it never goes down within an attempt. ``None``: only words were sent."""
    message: str | None = None
    data: Raw | UnsetType = UNSET


class Control(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the fold needs to know of a job and no client sees. Instants in ms since the epoch, 0 = none."""

    retry: RetryPolicy
    retention: Retention
    created: int
    since: int
    """When the job entered its state."""
    sequence: int = 0
    due: int = 0
    """When a scheduled or retryable job becomes available."""
    expires: int = 0
    lease: int = 0
    """End of the visibility timeout of an active job."""
    lease_ms: int = 0
    timeout_at: int = 0
    """End of the execution timeout of an active job."""
    enqueued: int = 0
    total_timeout_ms: int = 0
    dead: bool = False
    replays: int = 0
    origins: tuple[int, ...] = ()
    """Homes that hold something on behalf of this job (its id, a ``moved`` note) until it is removed."""
    watchers: tuple[Watcher, ...] = ()
    """Told of every change of state that concerns them, as the lock and the limit of the next two fields are."""
    unique: UniqueRule | None = None
    limit: LimitRule | None = None
    held: bool = False
    """Available, but waiting for a slot of its limit: not in the ready index."""
    ask: int = 0
    """How often the job has asked its limit for a slot: an answer to an earlier ask is void."""
    progress: Progress | None = None
    """Of the present attempt, and of the last one until the next begins."""
    checkpoint: int = 0
    """The sequence of its checkpoint, a record of its own; 0: there is none."""


def is_told_of(ctl: Control) -> bool:
    """Whether a worker has told more of the job than releases before ``STATE_VERSION`` 2 can read."""
    return ctl.progress is not None or ctl.checkpoint > 0


class JobRecord(Struct, frozen=True, omit_defaults=True):
    """A job at its home. ``extra`` are the client's own top-level fields, given back unchanged."""

    job: Job
    ctl: Control
    extra: Raw | UnsetType = UNSET


class CheckpointRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a job needs to go on where its last attempt was (ojs-durable-execution), at the job's home.

    It is not a part of the job: a heartbeat must not write a megabyte of state again.
    """

    job: str
    sequence: int
    """+1 with every save; a deleted one begins again at 1."""
    at: int
    """When it was saved (ms)."""
    state: Raw
    step_index: int | None = None
    metadata: Raw | UnsetType = UNSET


class Moved(Struct, frozen=True):
    """Left behind when a job changed its home: commands for it are forwarded."""

    moved: int


class IdRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A client-supplied job id at hash(id): which home has the job. ``stage``: still being decided."""

    home: int
    stage: str = ""


class Counts(Struct, frozen=True, kw_only=True):
    """How many records of a queue are in each state; absolute, written with the records."""

    available: int = 0
    active: int = 0
    scheduled: int = 0
    retryable: int = 0
    pending: int = 0
    completed: int = 0
    cancelled: int = 0
    discarded: int = 0


class Totals(Struct, frozen=True, kw_only=True):
    """Lifetime totals of a queue; they never go down."""

    enqueued: int = 0
    started: int = 0
    completed: int = 0
    failed: int = 0
    discarded: int = 0
    cancelled: int = 0


class Ending(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A queue is being deleted: what becomes of the jobs that wait or run in it."""

    strategy: Literal["discard", "move"]
    target: str = ""
    look_at: int = 0
    """When the reaper looks again whether the last active job has ended (ms)."""


class QueueLimit(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A limit on all jobs of a queue, checked by its claims; ``None``: not limited in that way."""

    concurrency: int | None = None
    rate: Window | None = None


class QueueRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A queue at its home."""

    name: str
    created_at: str
    counts: Counts = Counts()
    totals: Totals = Totals()
    reserved: dict[str, tuple[int, ...]] = {}
    """stage -> the places of its jobs that room is held for"""
    held: int = 0
    """So many of the available jobs wait for a slot of their limits."""
    limit: QueueLimit | None = None
    """As its configuration says (``fold/limits.py: follow_config``)."""
    window: int = 0
    """When the window of the queue's own rate began: with its first start (ms)."""
    starts: int = 0
    """How many jobs were started in it."""
    paused: bool = False
    paused_at: str | None = None
    resumed_at: str | None = None
    ending: Ending | None = None
    deleted: bool = False
    """No client sees the queue any more; the record counts its finished jobs until the last of them goes."""


class Minute(Struct, frozen=True, kw_only=True):
    """What happened in a queue in one minute (minutes since the epoch); 60 slots are kept."""

    minute: int
    completed: int = 0
    failed: int = 0
    started: int = 0
    duration_ms: int = 0
    wait_ms: int = 0
    enqueued: int = 0


class Day(Struct, frozen=True, kw_only=True):
    """What happened in a queue on one day (days since the epoch), hour by hour; 31 slots are kept.

    A minute is added when its slot is used again: what happened is either here or still among the minutes.
    """

    day: int
    hours: dict[int, Minute] = {}
    """By hour of the day; ``minute`` is the hour's first."""


WorkerState = Literal["running", "quiet", "terminate", "drain", "stopped"]


class WorkerRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A worker at hash(worker id). ``reported`` is what it says of itself, ``directive`` what we ask of it."""

    id: str
    started_at: str
    last_heartbeat_at: str
    beat: int
    reported: str = "running"
    directive: str = "running"
    hostname: str | None = None
    pid: int | None = None
    concurrency: int | None = None
    queues: tuple[str, ...] = ()
    active_jobs: int = 0
    labels: Raw | UnsetType = UNSET
    version: str | None = None
    dead_after_ms: int = 30_000
    keep_ms: int = 86_400_000
    silent: bool = False


class Holder(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job that a lock knows: every living one with its fingerprint, and those in a final state of their rule."""

    job: str
    home: int
    """Where the job is."""
    state: State
    created: int
    period_ms: int = 0
    stage: str = ""
    """The stage that wants to store the job, while it is not decided."""
    replaced_by: str = ""
    """The job that takes its place: it stands against no other any more."""


class LockRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fingerprint of unique jobs and the jobs that have it, at the lock's home (``fold/locks.py``)."""

    key: str
    holders: tuple[Holder, ...]


class Verdict(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a home says to one job of a stage. No code: it may be stored, or ``existing`` is answered instead."""

    job: int
    """Its place in the command."""
    code: str = ""
    message: str = ""
    details: dict[str, Any] = {}
    existing: str = ""
    """The job that has the lock already."""
    home: int = 0
    """Where ``existing`` is."""
    coming: tuple[int, int, int] | None = None
    """The message (source, destination, number) after which ``existing`` is at its home for sure."""
    others: tuple[tuple[int, str], ...] = ()
    """(home, job id) of further ones that are to be replaced with it."""
    action: Literal["", "ignore", "replace", "replace_except_schedule"] = ""


class Pressure(Struct, frozen=True):
    """A bounded queue that is nearly full."""

    queue: str
    depth: int
    bound: int
    pressure: float
    """The part of its bound that it has: 1.0 is full."""


class Hold(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one job of an enqueue needs from a home before it may be stored: an id, a lock, or room in a queue."""

    kind: Literal["id", "lock", "room"]
    name: str
    """The job id, the fingerprint, or the queue."""
    job: int
    """The job's place in the command."""
    id: str
    """The job's id."""
    home: int
    """Where the job will be."""
    state: State = "available"
    rule: UniqueRule | None = None
    type: str = ""
    """The job's type, where a queue may not take it."""


class Stage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An enqueue that waits until every other home it needs has said yes; a deadline aborts it."""

    id: str
    command: Raw
    waiting: tuple[int, ...]
    deadline: int
    holds: dict[int, tuple[Hold, ...]] = {}
    """By home what the jobs need."""
    verdicts: tuple[Verdict, ...] = ()
    pressure: Pressure | None = None
    """The fullest of the queues that were asked for room, if it is nearly full."""


class RetryDefaults(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields of a retry policy that a queue's configuration sets; ``None``: it does not say."""

    max_attempts: int | None = None
    initial_ms: int | None = None
    coefficient: float | None = None
    max_ms: int | None = None
    jitter: bool | None = None
    strategy: Strategy | None = None
    on_exhaustion: Exhaustion | None = None
    non_retryable: tuple[str, ...] | None = None


class ConfigRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The configuration of a queue, or of the template ``_default``, as every home has it (OJS.md 5.6).

    Its truth is at the queue's home, which sends each change to the others: whoever decides on an enqueue has it.
    ``None`` (and 0 of ``concurrency``): it does not say, the template or the server does.
    """

    name: str
    version: int = 0
    updated_at: str = ""
    draining: bool = False
    max_size: int | None = None
    """So many jobs may wait or run in the queue; 0: any number."""
    warning_threshold: float | None = None
    """From this part of ``max_size`` on an enqueue tells the depth."""
    concurrency: int = 0
    rate_limit: Window | None = None
    visibility_timeout_ms: int | None = None
    default_timeout_ms: int | None = None
    retry: RetryDefaults | None = None
    completed_ms: int | None = None
    cancelled_ms: int | None = None
    discarded_ms: int | None = None
    dead_ms: int | None = None
    allowed_job_types: tuple[str, ...] | None = None
    """Exact, or a beginning with ``*`` behind it."""


OverlapPolicy = Literal["skip", "allow", "cancel_previous", "enqueue"]


class CronJob(Struct, frozen=True):
    """A job of a cron entry that is not over, as far as the entry knows."""

    id: str
    queue: str


class CronRun(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One occurrence of a cron entry. Instants in ms since the epoch."""

    due: int
    """The instant of the schedule; of a run by hand, when it was asked for."""
    at: int
    """When it was decided."""
    outcome: Literal["triggered", "skipped"]
    job: str = ""
    """The job that was enqueued, or was to be."""
    reason: str = ""
    """Why it was skipped; ``manual`` for a run by hand."""
    state: str = ""
    """How the job has ended; empty while it has not."""
    replay: str = ""
    """The client's ``Idempotency-Key`` of a run by hand."""
    missed: int = 0
    """So many instants before this one passed while nobody could look; they are not made up for."""


class CronRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A cron entry at hash(its name) (OJS.md 5.2). Instants in ms since the epoch, 0 = none."""

    name: str
    expression: str
    template: Raw
    """The job as the client wrote it: an object with ``type``, ``args`` and maybe ``meta``, ``options``."""
    job: Raw
    """The checked ``NewJob`` that each run enqueues, as JSON; its id is made then."""
    serial: int
    """Unlike for every entry of this home, also of the same name: ids of jobs are derived from it."""
    version: int
    """+1 with every change of the definition: what was computed from an older one is void."""
    anchor: int
    """Where ``@every`` counts from."""
    created: int
    updated: int
    timezone: str = "UTC"
    overlap: OverlapPolicy = "skip"
    enabled: bool = True
    description: str | None = None
    next_at: int = 0
    """When it fires next; 0: never (paused)."""
    last_tick: int = 0
    """The last instant of the schedule that was decided: it and all before it never fire again."""
    last_run: int = 0
    runs: int = 0
    running: tuple[CronJob, ...] = ()
    """The newest of its jobs that are not over, oldest first (``RUNNING_MAX``)."""
    history: tuple[CronRun, ...] = ()
    """The last occurrences, newest first (``HISTORY_MAX``)."""


FlowKind = Literal["chain", "group", "batch", "dag"]
WorkflowState = Literal["running", "completed", "failed", "cancelled"]
StepState = Literal["waiting", "pending", "running", "completed", "failed", "cancelled", "skipped"]


class Flow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A composition of steps: a workflow, or a step that is one itself.

    Its members are the ``count`` steps from number ``first`` on; then come its callbacks. Every kind is advanced
    alike: a member starts when all that it depends on has completed, and the flow ends with its last member.
    """

    kind: FlowKind
    first: int
    count: int
    open: int = 0
    """Members (and fired callbacks of a nested batch) that have not ended yet."""
    completed: int = 0
    """Members that have completed."""
    failed: int = 0
    """Members and callbacks that have ended in any other way."""
    on_complete: int = 0
    """The number of this callback; 0: there is none (number 0 is always a member)."""
    on_success: int = 0
    on_failure: int = 0
    fired: bool = False
    """The members have ended, the callbacks were started or skipped."""

    @property
    def members(self) -> range:
        """The numbers of the members, in their order."""
        return range(self.first, self.first + self.count)

    @property
    def callbacks(self) -> list[int]:
        """The numbers of the callbacks."""
        return [number for number in (self.on_complete, self.on_success, self.on_failure) if number]


class WorkflowRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A workflow at the home in its id; its steps are records of their own, by number."""

    id: str
    name: str
    state: WorkflowState
    created: int
    retention: Retention
    flow: Flow
    steps: int
    """So many step records there are, nested ones and callbacks included."""
    jobs: int
    """Jobs without callbacks, nested ones included."""
    jobs_completed: int = 0
    jobs_failed: int = 0
    failed_step: int = -1
    """The first step that has failed."""
    ended: int = 0
    """When it came to its final state (ms)."""
    closing: bool = False
    """Its retention is over, its steps are being removed."""


class StepRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of a workflow: a job, or a flow of further steps. It is small: every change writes it anew."""

    workflow: str
    number: int
    id: str
    """As the client named it, else its place."""
    type: str
    parent: int = -1
    """The step whose flow it is a member or a callback of; -1: the workflow's own."""
    callback: str = ""
    """``on_complete``, ``on_success`` or ``on_failure``."""
    state: StepState = "waiting"
    open: int = 0
    """Steps that it waits for."""
    dependants: tuple[int, ...] = ()
    flow: Flow | None = None
    job_id: str = ""
    via: int = 0
    """The home that decided on its job (the lock's, else the queue's): a cancel takes the same way."""
    started: int = 0
    ended: int = 0
    result: Raw | UnsetType = UNSET
    error: ErrorEntry | None = None
    reason: str = ""
    """Why its job was refused."""

    @property
    def failure(self) -> ErrorEntry | dict[str, str] | None:
        """Why it has failed, if anybody has said so."""
        if self.error is None and self.reason:
            return {"code": "refused", "message": self.reason}
        return self.error


class PlanRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a waiting step needs to start; gone when it has started or never will."""

    job: Raw | UnsetType = UNSET
    """Its ``NewJob``."""
    depends: tuple[int, ...] = ()
    """The steps of a DAG whose results it gets, in the order that the client gave."""


class Override(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an operator puts in place of a limit's rule. What is ``None`` stays as the rule has it."""

    concurrency: int | None = None
    rate: Window | None = None
    throttle: Window | None = None
    until: int = 0
    """When it ends (ms); 0: when it is deleted."""


class LimitRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A limit at the home of its key: the rule of the latest job, and how much of it is used."""

    key: str
    concurrency: int | None = None
    rate: Window | None = None
    throttle: Window | None = None
    override: Override | None = None
    waiting: int = 0
    granted: int = 0
    """Slots whose jobs have not started yet. They count as used."""
    active: int = 0
    window: int = 0
    """When the window of the rate began: with its first start (ms)."""
    starts: int = 0
    """How many jobs were started in it."""
    next_at: int = 0
    """When the throttle allows the next start (ms)."""
    paused_until: int = 0
    """No slot before this instant: a job has said so (``rate_limit_until``)."""
    asleep: dict[str, int] = {}
    """queue -> until when its jobs come after those of other queues: it has left a slot unused"""
    recall_at: int = 0
    """When slots that are not used are asked back; 0: nobody waits for them."""
    wake_at: int = 0
    """When time alone may free a slot (or ``recall_at``); 0: it does not."""
    forget_at: int = 0
    """When the record is removed; 0: it is in use."""


class SlotRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job under a limit, at the limit's home: it waits, was granted a slot, or runs."""

    key: str
    job: str
    state: Literal["waiting", "granted", "active"]
    home: int
    """Where the job is."""
    queue: str
    created: int
    """When the job was enqueued (ms): its id may have been that of another one before."""
    ask: int
    """Which ask of the job this is."""
    ticket: int
    """The job's own sequence in its queue: as long as it has that, it keeps its place here."""
    score: int
    """Its place among those who wait: priority, then who came first."""
    at: int = 0
    """When it was granted (ms)."""
    recalled: bool = False
    """It was asked back, since it was not used."""


class ReplayRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an ``Idempotency-Key`` was answered, for 24 hours, at hash(the key)."""

    key: str
    body: str
    """A hash of the request that the key came with."""
    until: int
    """When the key is forgotten (ms)."""
    stage: str = ""
    """The stage that decides on the command, while it does."""
    waiting: tuple[str, ...] = ()
    """Submits of the repeats that are to hear what the stage decides."""
    outcome: Raw | UnsetType = UNSET
    """What was answered; of whole jobs only their heads."""


class ImportRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much of an import a home has got. It stays: a namespace is filled by one import only."""

    id: str
    parts: int = 0
    ended: bool = False


Record = (
    JobRecord
    | CheckpointRecord
    | Moved
    | IdRecord
    | QueueRecord
    | Minute
    | Day
    | WorkerRecord
    | Stage
    | LockRecord
    | ConfigRecord
    | CronRecord
    | WorkflowRecord
    | StepRecord
    | PlanRecord
    | LimitRecord
    | SlotRecord
    | ReplayRecord
    | ImportRecord
)


STATE_VERSION = 2
"""What this release reads of all that Redis holds of a home. It rises when an older one would misread or lose some
of it. 2: progress, checkpoints, maintenance."""


class Maintenance(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Nothing is started: no claims, no promotions, no cron; what clients send is accepted."""

    since: int
    """When it began (ms)."""
    reason: str = ""
    ends: int = 0
    """When somebody expects it to end (ms); nothing happens then. 0: nobody has said."""


class HomeState(Struct, frozen=True, kw_only=True):
    """What a home knows of itself; written with every commit, beside ``applied``."""

    home: int
    v: int | UnsetType = UNSET
    """The lowest ``STATE_VERSION`` that can read all of the home's records; 1 is not written."""
    log_id: str = ""
    epoch: int = 0
    sequence: int = 0
    """+1 per job that becomes available: the FIFO order."""
    events: int = 0
    """The number of the last event; ``ojs-position`` in the topic."""
    effects: int = 0
    """The number of the last other effect in the outbox (retry record, dead letter, dead command)."""
    watched: int = 0
    """Active jobs and beating workers: while there are any, the log gets a tick every two seconds."""
    last: int = 0
    """Record time of the last record folded."""
    grace: int = 0
    """Leases and workers are not reaped before this instant (after an outage)."""
    sent: dict[str, int] = {}
    """Per destination home the number of the last message issued."""
    marks: dict[str, int] = {}
    """Per source the number of the highest message already folded."""
    importing: bool | UnsetType = UNSET
    """Its records are being brought from elsewhere: until all homes have theirs nothing else happens here."""
    maintenance: Maintenance | UnsetType = UNSET
    """Known at every home; its truth is at the home of ``MAINTENANCE``."""


def ready_score(priority: int, sequence: int) -> int:
    """Order inside a queue: priority descending, then sequence ascending."""
    return (PRIORITY_MAX - priority) * SEQUENCE_SPAN + sequence


def score_of(record: JobRecord) -> int:
    """Where a job stands in the index of its queue and state."""
    state = record.job.state
    if state == "available":
        return ready_score(record.job.priority, record.ctl.sequence)
    if state in ("scheduled", "retryable"):
        return record.ctl.due
    return record.ctl.since


def deadline_of(record: JobRecord) -> tuple[Literal["run", "reap"], int] | None:
    """Which tick must look at this job next, and when (ms). ``None``: nothing is due, ever."""
    ctl = record.ctl
    match record.job.state:
        case "available":
            end = _soonest(ctl.expires, _total_deadline(ctl))
            return ("reap", end) if end else None
        case "active":
            return "reap", _soonest(ctl.lease, _soonest(ctl.timeout_at, _total_deadline(ctl)))
        case "scheduled" | "retryable":
            return "run", _soonest(ctl.due, _soonest(ctl.expires, _total_deadline(ctl)))
        case "completed":
            return _kept(ctl, ctl.retention.completed_ms)
        case "cancelled":
            return _kept(ctl, ctl.retention.cancelled_ms)
        case "discarded":
            return _kept(ctl, ctl.retention.dead_ms if ctl.dead else ctl.retention.discarded_ms)
        case _:
            return None


def _total_deadline(ctl: Control) -> int:
    return ctl.created + ctl.total_timeout_ms if ctl.total_timeout_ms else 0


def _soonest(one: int, other: int) -> int:
    """The earlier of two instants, of which 0 is none."""
    return min(one, other) if one and other else one or other


def _kept(ctl: Control, keep_ms: int) -> tuple[Literal["reap"], int] | None:
    return ("reap", ctl.since + keep_ms) if keep_ms >= 0 else None


Entries = dict[Key, tuple[str, int]]
"""index -> (member, score)"""


def _job_entries(record: JobRecord) -> Entries:
    job = record.job
    held = record.ctl.held and job.state == "available"
    state = ("held", job.queue) if held else ("state", job.queue, job.state)
    entries: Entries = {state: (job.id, score_of(record))}
    deadline = deadline_of(record)
    if deadline:
        entries["due", deadline[0]] = (job.id, deadline[1])
    if job.state == "active" and job.worker_id:
        entries["leases", job.worker_id] = (job.id, record.ctl.since)
    if record.ctl.dead and job.state == "discarded":
        entries["dead",] = (job.id, record.ctl.since)
    return entries


def _worker_entries(worker: WorkerRecord) -> Entries:
    deadline = worker.beat + (worker.keep_ms if worker.silent else worker.dead_after_ms)
    return {
        ("workers",): (worker.id, worker.beat),
        ("due", "reap"): (f"worker:{worker.id}", deadline),
    }


def _cron_entries(entry: CronRecord) -> Entries:
    due: Entries = {("due", "cron"): (f"cron:{entry.name}", entry.next_at)} if entry.next_at else {}
    return {("crons",): (entry.name, 0), **due}


def _queue_entries(queue: QueueRecord) -> Entries:
    """A window that is used up ends by a tick: until then nobody need ask."""
    entries: Entries = {} if queue.deleted else {("queues",): (queue.name, 0)}
    if queue.ending is not None:
        entries["due", "reap"] = (f"queue:{queue.name}", queue.ending.look_at)
    rate = queue.limit.rate if queue.limit is not None else None
    if rate is not None and queue.window and queue.starts >= rate.limit:
        entries["due", "run"] = (f"queue:{queue.name}", queue.window + rate.period_ms)
    return entries


def has_room(queue: QueueRecord) -> bool:
    """Whether the limit on the whole queue allows another start, as far as its record knows."""
    limit = queue.limit
    if limit is None:
        return True
    if limit.concurrency is not None and queue.counts.active >= limit.concurrency:
        return False
    return limit.rate is None or queue.starts < limit.rate.limit


def _limit_entries(limit: LimitRecord) -> Entries:
    member = f"limit:{limit.key}"
    entries: Entries = {("limits",): (limit.key, 0)}
    if limit.wake_at:
        entries["due", "run"] = (member, limit.wake_at)
    if limit.forget_at:
        entries["due", "reap"] = (member, limit.forget_at)
    return entries


def _slot_entries(slot: SlotRecord) -> Entries:
    """Who waits, the best first; who holds a slot unused, the longest first, and the worst first."""
    member = f"slot:{slot.job}"
    if slot.state == "waiting":
        return {("waiting", slot.key): (member, slot.score)}
    if slot.state == "granted":
        return {("granted", slot.key): (member, slot.at), ("worst", slot.key): (member, -slot.score)}
    return {}


def _workflow_entries(workflow: WorkflowRecord) -> Entries:
    entries: Entries = {("workflows",): (workflow.id, workflow.created)}
    keep_ms = {
        "completed": workflow.retention.completed_ms,
        "failed": workflow.retention.discarded_ms,
        "cancelled": workflow.retention.cancelled_ms,
    }.get(workflow.state, -1)
    if keep_ms >= 0 and not workflow.closing:
        entries["due", "reap"] = (f"workflow:{workflow.id}", workflow.ended + keep_ms)
    return entries


def _lock_entries(lock: LockRecord) -> Entries:
    """A lock is looked at when the first period of its holders ends."""
    entries: Entries = {("locks",): (lock.key, lock.holders[0].created)}
    ends = [holder.created + holder.period_ms for holder in lock.holders if holder.period_ms]
    if ends:
        entries["due", "reap"] = (f"lock:{lock.key}", min(ends))
    return entries


def _replay_entries(replay: ReplayRecord) -> Entries:
    return {("due", "reap"): (f"replay:{replay.key}", replay.until)}


def _stage_entries(stage: Stage) -> Entries:
    return {("due", "reap"): (f"stage:{stage.id}", stage.deadline)}


_ENTRIES: dict[type, Callable[[Any], Entries]] = {
    JobRecord: _job_entries,
    WorkerRecord: _worker_entries,
    QueueRecord: _queue_entries,
    Stage: _stage_entries,
    LockRecord: _lock_entries,
    ReplayRecord: _replay_entries,
    LimitRecord: _limit_entries,
    SlotRecord: _slot_entries,
    WorkflowRecord: _workflow_entries,
    CronRecord: _cron_entries,
}
"""The records that stand in indexes."""


def entries_of(record: Record | None) -> Entries:
    """Every index entry that follows from a record."""
    made = _ENTRIES.get(type(record))
    return made(record) if made is not None else {}


def key_of_member(member: str) -> Key:
    """The record that an index member names: a job id, or ``<kind>:<name>`` such as ``worker:<id>``."""
    kind, colon, name = member.partition(":")
    return (kind, name) if colon else ("job", member)


def key_of_name(name: str) -> Key:
    """The key of a record from its parts with colons between them; a part may have colons of its own."""
    kind, _, rest = name.partition(":")
    if kind not in ("minute", "day", "step", "plan"):
        return kind, rest
    owner, _, number = rest.rpartition(":")
    return kind, owner, number


_job_encoder = msgspec.json.Encoder()


def public_json(record: JobRecord) -> bytes:
    """The job as a client sees it: the fields of the specification, then the client's own."""
    body = _job_encoder.encode(record.job)
    extra = record.extra
    if isinstance(extra, UnsetType):
        return body
    return body[:-1] + b"," + bytes(extra)[1:]


def stored_json(record: Record) -> bytes:
    """The record as Redis holds it: one JSON string."""
    return _job_encoder.encode(record)


_DECODERS: dict[str, msgspec.json.Decoder[Record]] = {
    "job": msgspec.json.Decoder(JobRecord),
    "checkpoint": msgspec.json.Decoder(CheckpointRecord),
    "id": msgspec.json.Decoder(IdRecord),
    "queue": msgspec.json.Decoder(QueueRecord),
    "minute": msgspec.json.Decoder(Minute),
    "day": msgspec.json.Decoder(Day),
    "worker": msgspec.json.Decoder(WorkerRecord),
    "stage": msgspec.json.Decoder(Stage),
    "lock": msgspec.json.Decoder(LockRecord),
    "config": msgspec.json.Decoder(ConfigRecord),
    "cron": msgspec.json.Decoder(CronRecord),
    "workflow": msgspec.json.Decoder(WorkflowRecord),
    "step": msgspec.json.Decoder(StepRecord),
    "plan": msgspec.json.Decoder(PlanRecord),
    "limit": msgspec.json.Decoder(LimitRecord),
    "slot": msgspec.json.Decoder(SlotRecord),
    "replay": msgspec.json.Decoder(ReplayRecord),
    "import": msgspec.json.Decoder(ImportRecord),
}
RECORD_KINDS = frozenset(_DECODERS)
"""The first parts of the keys of records; all other keys are indexes."""
_moved_decoder = msgspec.json.Decoder(Moved)


def decode_record(key: Key, data: bytes) -> Record:
    """The record of ``key`` from its stored form; ``msgspec.DecodeError`` if it is torn."""
    if key[0] == "job" and data.startswith(b'{"moved"'):
        return _moved_decoder.decode(data)
    return _DECODERS[key[0]].decode(data)
