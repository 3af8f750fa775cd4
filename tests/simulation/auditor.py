"""Is what was promised true? From topics, store and client histories alone; no code of the fold is used here."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from tests.simulation.clients import ARGS, Asked, History
from tests.simulation.flows import Oracle
from tests.support.recount import jobs, recount_all

Event = dict[str, Any]
Topics = dict[tuple[str, int], list[Any]]

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
    "completed": {},
    "cancelled": {},
}
RUNNABLE = ("available", "active", "scheduled", "retryable")


class Audit:
    """All checks of one run; ``problems`` are sentences."""

    def __init__(self, topics: Topics, dumps: list[dict[str, Any]], history: History) -> None:
        self.problems: list[str] = []
        self._topics = topics
        self._dumps = dumps
        self._history = history.lines
        self._drawn = history.workflows
        self._homes = [json.loads(dump["home"]) for dump in dumps]
        self._stored = {job_id: record for dump in dumps for job_id, record in jobs(dump).items()}
        self._events: list[list[Event]] = [self._events_of(home) for home in range(len(dumps))]

    def run(self) -> list[str]:
        """Check everything."""
        self.problems += recount_all(self._dumps)
        self._messages()
        self._outboxes()
        self._chains()
        self._claims()
        self._tagged()
        self._enqueues()
        self._revivals()
        self._workflows()
        self._bytes()
        self._nothing_is_left()
        return self.problems

    def _records(self, topic: str, home: int) -> list[Any]:
        return self._topics.get((f"sim.{topic}", home), [])

    # -- positions ----------------------------------------------------------------------------------------

    def _positions(self, topic: str, home: int) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for record in self._records(topic, home):
            number = int(dict(record.headers)["ojs-position"])
            if found.setdefault(number, record.value) != record.value:
                self.problems.append(f"{topic}[{home}] has two different records at position {number}")
        return found

    def _events_of(self, home: int) -> list[Event]:
        found = self._positions("events", home)
        last = self._homes[home].get("events", 0)
        missing = sorted(set(range(1, last + 1)) - found.keys())
        if missing:
            self.problems.append(f"events[{home}] lacks positions {missing[:10]} of {last}")
        if max(found, default=0) > last:
            self.problems.append(f"events[{home}] has position {max(found)}, the home has made only {last}")
        events = [json.loads(found[number]) for number in sorted(found)]
        ids = Counter(event["id"] for event in events)
        self.problems += [f"event id {one} is used at {n} positions" for one, n in ids.items() if n > 1]
        return events

    def _outboxes(self) -> None:
        for home, state in enumerate(self._homes):
            numbers: Counter[int] = Counter()
            for topic in ("retry", "dead", "commands.dead"):
                numbers.update(self._positions(topic, home).keys())
            want = set(range(1, state.get("effects", 0) + 1))
            if set(numbers) != want or any(n > 1 for n in numbers.values()):
                self.problems.append(f"home {home} made {len(want)} effects, the topics have {sorted(numbers)}")
            if self._records("commands.dead", home):
                self.problems.append(
                    f"home {home} put a command aside: {self._records('commands.dead', home)[0].value!r}"
                )

    # -- messages -----------------------------------------------------------------------------------------

    def _messages(self) -> None:
        for home, state in enumerate(self._homes):
            seen: dict[str, dict[int, str]] = defaultdict(dict)
            for record in self._records("commands", home):
                for command in json.loads(record.value)["commands"]:
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
        number, text = command["number"], json.dumps(command, sort_keys=True)
        if number not in seen and number != max(seen, default=0) + 1:
            self.problems.append(
                f"home {home} got message {number} of {command['source']} after {max(seen, default=0)}"
            )
        if seen.setdefault(number, text) != text:
            self.problems.append(f"home {home} got two different messages {number} of {command['source']}")

    # -- jobs ---------------------------------------------------------------------------------------------

    def _job_events(self) -> Iterable[Event]:
        return (event for events in self._events for event in events if event["type"].startswith("job."))

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
        for job_id in ends.keys() - self._stored.keys():
            self.problems.append(f"job {job_id} has events and no record")

    def _walk(self, home: int, job_id: str, chain: list[Event]) -> str:
        state, attempt = "", 0
        for event in chain:
            following = STEPS[state].get(event["type"])
            if following is None:
                self.problems.append(
                    f"home {home}: job {job_id} was {state or 'unknown'} and then {event['type']}"
                )
                return state
            if state == "discarded":
                attempt = 0
            if following == "active":
                attempt += 1
                if event["data"]["attempt"] != attempt:
                    self.problems.append(
                        f"job {job_id} started attempt {event['data']['attempt']} after {attempt - 1}"
                    )
            state = following
        return state

    # -- requests -----------------------------------------------------------------------------------------

    def _claims(self) -> None:
        started: dict[str, list[str]] = defaultdict(list)
        for event in self._job_events():
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
        for event in self._job_events():
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

    def _enqueues(self) -> None:
        answers: dict[str, list[Asked]] = defaultdict(list)
        for line in self._history:
            if line.kind == "enqueue":
                for job_id in line.fields["ids"]:
                    answers[job_id].append(line)
        for job_id, lines in answers.items():
            self._enqueued(job_id, [line.answer for line in lines])
        for line in self._history:
            if line.kind == "enqueue" and len({job_id in self._stored for job_id in line.fields["ids"]}) > 1:
                self.problems.append(f"enqueue {line.fields['ids']} was stored in part")

    def _enqueued(self, job_id: str, answers: list[str]) -> None:
        exists = job_id in self._stored
        if "ok" in answers and not exists:
            self.problems.append(f"job {job_id} was accepted and is nowhere")
        if answers.count("ok") > 1:
            self.problems.append(f"job {job_id} was accepted twice")
        if exists and set(answers) <= {"refused", "not_written"}:
            self.problems.append(f"job {job_id} exists, the answers were {answers}")

    def _revivals(self) -> None:
        asked: dict[str, Counter[str]] = defaultdict(Counter)
        for line in self._history:
            if line.kind == "retry_dead":
                asked[line.fields["job_id"]][line.answer] += 1
        for job_id, record in self._stored.items():
            found = record["ctl"].get("replays", 0)
            low = asked[job_id]["ok"]
            if not low <= found <= low + asked[job_id]["unknown"]:
                self.problems.append(f"job {job_id} was revived {found} times, the answers were {asked[job_id]}")

    def uniques(self) -> list[str]:
        """No unique job is stored while another one of its fingerprint is in its states.

        By the times of the events: the clock of the log must never have been set. A job that is replaced may see
        its successor until it hears of it, and end in another way before; one that came back from the dead was
        never asked.
        """
        lives: dict[str, tuple[str, str]] = {}
        replaced: set[str] = set()
        for event in sorted(self._job_events(), key=lambda event: event["time"]):
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
            name[9:]: json.loads(data)["state"]
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
            json.loads(data)
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
