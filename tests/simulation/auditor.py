"""Is what was promised true? From topics, store and client histories alone; no code of the fold is used here.

Nor any other code of the product: ``test_auditor.py`` sees to it, and that broken products are found out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

from msgspec.json import decode as decode_json

from tests.simulation.audit_bulk import bulk_kept
from tests.simulation.audit_cron import crons_kept, overlaps
from tests.simulation.audit_limits import limits_kept
from tests.simulation.audit_order import OrderAudit
from tests.simulation.audit_rest import leases_kept, switches_kept, workers_known
from tests.simulation.audit_versions import touches_kept
from tests.simulation.evidence import Event, Evidence, Topics
from tests.simulation.history import ARGS, Asked, History
from tests.simulation.oracle import Oracle
from tests.support.recount import recount_all

STEPS: dict[str, dict[str, str]] = {
    "": {"job.enqueued": "available", "job.scheduled": "scheduled", "job.pending": "pending"},
    "available": {"job.started": "active", "job.cancelled": "cancelled", "job.expired": "discarded"},
    "scheduled": {"job.enqueued": "available", "job.cancelled": "cancelled", "job.expired": "discarded"},
    "pending": {"job.enqueued": "available", "job.cancelled": "cancelled"},
    "active": {
        "job.completed": "completed",
        "job.failed": "failing",
        "job.cancelled": "cancelled",
        "job.enqueued": "available",
    },
    "failing": {"job.retrying": "retryable", "job.discarded": "discarded"},
    "retryable": {"job.enqueued": "available", "job.cancelled": "cancelled", "job.expired": "discarded"},
    "discarded": {"job.enqueued": "available"},
    "cancelled": {"job.enqueued": "available"},
    "completed": {},
}
LIMITED = {"job.scheduled": "scheduled", "job.discarded": "discarded"}
"""What a job under a limit may do instead of waiting while it is available."""
RUNNABLE = ("available", "active", "scheduled", "retryable")


class Audit:
    """All checks of one run; ``problems`` are sentences."""

    def __init__(self, topics: Topics, dumps: list[dict[str, Any]], history: History) -> None:
        self.evidence = Evidence(topics, dumps, history)
        self.problems = self.evidence.problems
        self._dumps = dumps
        self._history = history.lines
        self._drawn = history.workflows
        self._homes = self.evidence.homes
        self._stored = self.evidence.stored
        self._events = self.evidence.events
        self._deleted = self.evidence.deleted

    def run(self) -> list[str]:
        """Check everything."""
        self.problems += recount_all(self._dumps)
        self._messages()
        self._outboxes()
        self._chains()
        self._claims()
        self._tagged()
        self._changed_many()
        self._counted()
        self._enqueues()
        self._revivals()
        self._workflows()
        self.problems += OrderAudit(self.evidence).run()
        self.problems += crons_kept(self.evidence)
        self.problems += bulk_kept(self.evidence)
        self.problems += touches_kept(self.evidence)
        self.problems += switches_kept(self.evidence) + workers_known(self.evidence)
        self._bytes()
        self._nothing_is_left()
        return self.problems

    def timely(self) -> list[str]:
        """What only times can tell: the clock of the log must never have been set."""
        return self._uniques() + limits_kept(self.evidence) + overlaps(self.evidence) + leases_kept(self.evidence)

    # -- positions ----------------------------------------------------------------------------------------

    def _outboxes(self) -> None:
        for home, state in enumerate(self._homes):
            numbers: Counter[int] = Counter()
            for topic in ("retry", "dead", "commands.dead"):
                numbers.update(self.evidence.positions(topic, home).keys())
            want = set(range(1, state.get("effects", 0) + 1))
            if set(numbers) != want or any(n > 1 for n in numbers.values()):
                self.problems.append(f"home {home} made {len(want)} effects, the topics have {sorted(numbers)}")
            if buried := self.evidence.positions("commands.dead", home):
                self.problems.append(f"home {home} put a command aside: {next(iter(buried.values()))!r}")

    # -- messages -----------------------------------------------------------------------------------------

    def _messages(self) -> None:
        for home, state in enumerate(self._homes):
            seen: dict[str, dict[int, str]] = defaultdict(dict)
            for record in self.evidence.records("commands", home):
                for command in decode_json(record.value)["commands"]:
                    if command.get("source"):
                        self._message(home, seen[command["source"]], command)
            marks = {source: max(numbers) for source, numbers in seen.items()}
            if marks != state.get("marks", {}):
                self.problems.append(f"home {home} has marks {state.get('marks')}, its log says {marks}")
            for source, other in enumerate(self._homes):
                sent = other.get("sent", {}).get(str(home), 0)
                if sent != marks.get(str(source), 0):
                    self.problems.append(f"home {source} sent {sent} messages to {home}, it has {marks}")

    def _message(self, home: int, seen: dict[int, str], command: dict[str, Any]) -> None:
        number, bulk = command["number"], command["source"].startswith("bulk:")
        text = str(sorted((name, value) for name, value in command.items() if name != "submit" or not bulk))
        if number not in seen and not bulk and number != max(seen, default=0) + 1:
            self.problems.append(
                f"home {home} got message {number} of {command['source']} after {max(seen, default=0)}"
            )
        if seen.setdefault(number, text) != text:
            self.problems.append(f"home {home} got two different messages {number} of {command['source']}")

    # -- jobs ---------------------------------------------------------------------------------------------

    def _chains(self) -> None:
        ends: dict[str, set[str]] = defaultdict(set)
        for home, events in enumerate(self._events):
            chains: dict[str, list[Event]] = defaultdict(list)
            for event in events:
                if event["type"].startswith("job."):
                    chains[event["subject"]].append(event)
            for job_id, chain in chains.items():
                ends[job_id].add(self._walk(home, job_id, chain))
        for job_id, record in self._stored.items():
            if record["job"]["state"] not in ends[job_id]:
                self.problems.append(f"job {job_id} is {record['job']['state']}, its events end at {ends[job_id]}")
        gone = ends.keys() - self._stored.keys() - self._deleted.maybe
        self.problems += [f"job {job_id} has events and no record" for job_id in sorted(gone)]
        there = self._deleted.surely & self._stored.keys()
        self.problems += [f"job {job_id} was deleted and is there" for job_id in sorted(there)]

    def _walk(self, home: int, job_id: str, chain: list[Event]) -> str:
        state, attempt = "", 0
        for event in chain:
            following = STEPS[state].get(event["type"])
            if following is None and state == "available" and self._is_limited(job_id):
                following = LIMITED.get(event["type"])
            if following is None:
                self.problems.append(
                    f"home {home}: job {job_id} was {state or 'unknown'} and then {event['type']}"
                )
                return state
            if state in ("discarded", "cancelled"):
                attempt = 0
            if following == "active":
                attempt += 1
                if event["data"]["attempt"] != attempt:
                    self.problems.append(
                        f"job {job_id} started attempt {event['data']['attempt']} after {attempt - 1}"
                    )
            state = following
        return state

    def _is_limited(self, job_id: str) -> bool:
        record = self._stored.get(job_id)
        return job_id in self._deleted.maybe if record is None else bool(record["ctl"].get("limit"))

    # -- requests -----------------------------------------------------------------------------------------

    def _claims(self) -> None:
        started: dict[str, list[str]] = defaultdict(list)
        for event in self.evidence.job_events():
            if event["type"] == "job.started":
                started[event["data"].get("worker_id", "")].append(event["subject"])
        for line in self._history:
            if line.kind != "claim":
                continue
            have, told = sorted(started[line.tag]), sorted(job["id"] for job in line.jobs)
            if line.answer == "ok" and have != told:
                self.problems.append(f"claim {line.tag} was told {told}, the events say {have}")
            if line.answer in ("refused", "not_written") and have:
                self.problems.append(f"claim {line.tag} was {line.answer} and has started {have}")

    def _tagged(self) -> None:
        counts: Counter[tuple[str, Any]] = Counter()
        for event in self.evidence.job_events():
            data = event["data"]
            if event["type"] == "job.completed":
                counts["ack", data.get("result")] += 1
            elif event["type"] == "job.cancelled":
                counts["cancel", data.get("reason")] += 1
            elif event["type"] == "job.failed":
                counts["nack", data["error"]["message"]] += 1
        requeued = Counter(
            failure["message"] for record in self._stored.values() for failure in record["job"].get("errors", ())
        )
        for line in self._history:
            if line.kind in ("ack", "nack", "cancel"):
                found = counts[line.kind, line.tag]
                if line.fields.get("requeue"):
                    found = min(requeued[line.tag], 1) if line.answer != "ok" else 1
                self._expect(line, found)

    def _expect(self, line: Asked, found: int) -> None:
        bounds = {"ok": (1, 1), "refused": (0, 0), "not_written": (0, 0), "unknown": (0, 1)}[line.answer]
        if not bounds[0] <= found <= bounds[1]:
            self.problems.append(
                f"{line.kind} {line.tag} {line.fields} was {line.answer}, it happened {found} times"
            )

    def _changed_many(self) -> None:
        """A bulk change that was told happened to the jobs that it named, once each; another to none or some."""
        ended: dict[str, Counter[str]] = defaultdict(Counter)
        for event in self.evidence.job_events():
            if event["type"] == "job.cancelled":
                ended[event["data"].get("reason", "")][event["subject"]] += 1
        for line in self.evidence.asked("bulk"):
            found = ended[line.tag]
            done = line.data.get("done", []) if line.fields["action"] == "cancel" else []
            if line.answer == "unknown" and line.fields["action"] == "cancel":
                done = [job_id for job_id in line.fields["ids"] if found[job_id]]
            if found != Counter(done):
                self.problems.append(f"bulk {line.tag} was {line.answer}, told {done} and ended {dict(found)}")

    def _counted(self) -> None:
        """What carries no mark of its request is counted: not less than was told, not more than was asked."""
        happened = self._happened()
        told: dict[str, Counter[str]] = defaultdict(Counter)
        open_: dict[str, Counter[str]] = defaultdict(Counter)
        for line in self.evidence.asked("activate", "reprioritize", "retry_job", "give_back", "bulk"):
            kind = "retry_job" if line.kind == "bulk" else line.kind
            if line.kind == "bulk" and line.fields["action"] != "retry":
                continue
            ids = line.fields.get("ids") or [line.fields["job_id"]]
            if line.answer == "ok":
                told[kind].update(line.data["done"] if line.kind == "bulk" else self._sure(line))
                open_[kind].update(ids if line.kind == "give_back" else [])
            elif line.answer == "unknown":
                open_[kind].update(ids)
        for kind, found in happened.items():
            for job_id in found.keys() | told[kind].keys():
                low, high = told[kind][job_id], told[kind][job_id] + open_[kind][job_id]
                if not low <= found[job_id] <= high:
                    self.problems.append(
                        f"{kind} of job {job_id} happened {found[job_id]} times, not {low} to {high}"
                    )

    @staticmethod
    def _sure(line: Asked) -> list[str]:
        """The job that a told request has surely changed: some change nothing when there is nothing to change."""
        changed = line.kind in ("activate", "retry_job")
        if line.kind == "reprioritize":
            changed = line.data["previous_priority"] != line.jobs[0]["priority"]
        return [line.fields["job_id"]] if changed else []

    def _happened(self) -> dict[str, Counter[str]]:
        found: dict[str, Counter[str]] = {
            kind: Counter() for kind in ("activate", "reprioritize", "retry_job", "give_back")
        }
        pending: set[str] = set()
        for events in self._events:
            for event in events:
                job_id, reason = event["subject"], event["data"].get("reason")
                if event["type"] == "priority.changed":
                    found["reprioritize"][job_id] += 1
                elif event["type"] == "job.enqueued" and reason in ("retried", "given_back"):
                    found["retry_job" if reason == "retried" else "give_back"][job_id] += 1
                elif event["type"] == "job.enqueued" and job_id in pending:
                    found["activate"][job_id] += 1
                if event["type"].startswith("job."):
                    (pending.add if event["type"] == "job.pending" else pending.discard)(job_id)
        return found

    def _enqueues(self) -> None:
        answers: dict[str, list[Asked]] = defaultdict(list)
        for line in self._history:
            if line.kind == "enqueue":
                for job_id in line.fields["ids"]:
                    answers[job_id].append(line)
        for job_id, lines in answers.items():
            self._enqueued(job_id, [line.answer for line in lines])
        for line in self._history:
            if line.kind != "enqueue":
                continue
            ids = set(line.fields["ids"]) - self._deleted.maybe
            if len({job_id in self._stored for job_id in ids}) > 1:
                self.problems.append(f"enqueue {line.fields['ids']} was stored in part")

    def _enqueued(self, job_id: str, answers: list[str]) -> None:
        exists = job_id in self._stored
        if "ok" in answers and not exists and job_id not in self._deleted.maybe:
            self.problems.append(f"job {job_id} was accepted and is nowhere")
        if answers.count("ok") > 1:
            self.problems.append(f"job {job_id} was accepted twice")
        if exists and set(answers) <= {"refused", "not_written"}:
            self.problems.append(f"job {job_id} exists, the answers were {answers}")

    def _revivals(self) -> None:
        """A job that had ended begins anew as often as it was asked for."""
        sure: Counter[str] = Counter()
        open_: Counter[str] = Counter()
        for line in self.evidence.asked("retry_dead", "retry_job"):
            again = line.data.get("previous_state") != "retryable"
            sure[line.fields["job_id"]] += line.answer == "ok" and again
            open_[line.fields["job_id"]] += line.answer == "unknown"
        for line in self.evidence.asked("bulk"):
            if line.fields["action"] == "retry" and line.answer in ("ok", "unknown"):
                open_.update(line.data.get("done", line.fields["ids"]))
        for job_id, record in self._stored.items():
            found, low = record["ctl"].get("replays", 0), sure[job_id]
            if not low <= found <= low + open_[job_id]:
                self.problems.append(f"job {job_id} began anew {found} times, not {low} to {low + open_[job_id]}")

    def _uniques(self) -> list[str]:
        """No unique job is stored while another one of its fingerprint is in its states.

        By the times of the events: the clock of the log must never have been set. A job that is replaced may see
        its successor until it hears of it, and end in another way before; one that came back from the dead was
        never asked.
        """
        lives: dict[str, tuple[str, str]] = {}
        replaced: set[str] = set()
        for event in self.evidence.in_time():
            if not event["type"].startswith("job."):
                continue
            job_id = event["subject"]
            begun, _ = lives.get(job_id, (event["time"], ""))
            lives[job_id] = begun, event["time"]
            if event["data"].get("reason", "").startswith("replaced by another job"):
                replaced.add(job_id)
        holding: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
        for job_id, record in self._stored.items():
            if record["ctl"].get("unique") and not record["ctl"].get("replays") and job_id not in replaced:
                holding[record["ctl"]["unique"]["key"]].append((*lives[job_id], job_id))
        return [
            f"unique jobs {one[2]} and {other[2]} have lived side by side"
            for same in holding.values()
            for one, other in pairwise(sorted(same))
            if other[0] < one[1] and self._rule_of(other[2]).get("on_conflict") != "replace"
        ]

    def _rule_of(self, job_id: str) -> dict[str, Any]:
        rule: dict[str, Any] = self._stored[job_id]["ctl"]["unique"]
        return rule

    # -- workflows ----------------------------------------------------------------------------------------

    def _workflows(self) -> None:
        """Each advanced as the ends of its jobs say, and every step of it once."""
        oracle = Oracle(self._events)
        oracle.twice()
        stored = {
            name[9:]: decode_json(data)["state"]
            for dump in self._dumps
            for name, data in dump.items()
            if name.startswith("workflow:")
        }
        for name, state in stored.items():
            oracle.check(name, self._drawn[name], state)
            if state == "cancelled":
                for job_id in self._lost_jobs(name):
                    oracle.cancelled(name, job_id)
        self.problems += oracle.problems
        asked: dict[tuple[str, str], list[str]] = defaultdict(list)
        for line in self._history:
            asked[line.kind, line.tag].append(line.answer)
        for name in self._drawn:
            self._asked_workflow(name, stored.get(name), asked)

    def _lost_jobs(self, workflow_id: str) -> list[str]:
        """Jobs at the home of a cancelled workflow whose steps were not over."""
        found = [
            decode_json(data)
            for dump in self._dumps
            for name, data in dump.items()
            if name.startswith(f"step:{workflow_id}:")
        ]
        lost = [step.get("job_id", "") for step in found if step.get("state") == "cancelled"]
        return [job_id for job_id in lost if job_id and job_id[-3:] == workflow_id[-3:]]

    def _asked_workflow(self, name: str, state: str | None, asked: dict[tuple[str, str], list[str]]) -> None:
        (started,) = asked["start_workflow", name]
        if (started == "ok" and state is None) or (started in ("refused", "not_written") and state is not None):
            self.problems.append(f"workflow {name} is {state}, its start was {started}")
        cancels = asked.get(("cancel_workflow", name), [])
        if "ok" in cancels and (state != "cancelled" or cancels.count("ok") > 1):
            self.problems.append(f"workflow {name} is {state}, its cancels were {cancels}")
        if state == "cancelled" and not {"ok", "unknown"} & set(cancels):
            self.problems.append(f"workflow {name} is cancelled, its cancels were {cancels}")

    def _bytes(self) -> None:
        for dump in self._dumps:
            for name, data in dump.items():
                if name.startswith("job:") and not data.startswith(b'{"moved"') and ARGS not in data:
                    self.problems.append(f"{name} has lost the bytes of its args")

    def _nothing_is_left(self) -> None:
        for job_id, record in self._stored.items():
            if record["job"]["state"] in RUNNABLE:
                self.problems.append(f"job {job_id} is stuck: {record['job']['state']}")
        for home, dump in enumerate(self._dumps):
            stages = [name for name in dump if name.startswith("stage:")]
            if stages:
                self.problems.append(f"home {home} never decided {stages}")
