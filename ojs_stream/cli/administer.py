"""``ojs-stream jobs | queues | dlq | cron | workflows``: looks and changes over HTTP.

Exit codes: 0 done, 1 refused or not there, 2 wrong usage, 3 no answer.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ojs_stream.cli.server import Ask, AskedInVainError, Server, complain
from ojs_stream.cli.showing import print_fields, print_json, print_rows, wants_json

URL_DEFAULT = "http://127.0.0.1:8080"
LIST_DEFAULT = 50
LIST_MAX = 100
"""Rows of a list; more are pages of it, with --cursor or --page."""

Url = Annotated[str, typer.Option("--url", envvar="OJS_URL", help="Where the server is.")]
Key = Annotated[
    str | None,
    typer.Option("--key", envvar="OJS_API_KEY", show_envvar=True, help="The API key, if one is needed."),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on a terminal, too.")]
Limit = Annotated[int, typer.Option(min=1, max=LIST_MAX, help="At most so many rows.")]
Cursor = Annotated[str | None, typer.Option(help="Go on where a list ended: its pagination.next_cursor.")]
Queue = Annotated[str | None, typer.Option(help="Only of this queue.")]
Type = Annotated[str | None, typer.Option("--type", help="Only of this job type.")]
State = Annotated[str | None, typer.Option(help="Only in this state.")]
Id = Annotated[str, typer.Argument(help="Its id.")]
Name = Annotated[str, typer.Argument(help="Its name.")]
Reason = Annotated[str | None, typer.Option(help="Why; it is kept with the job.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

JOB_COLUMNS = ("id", "type", "queue", "state", "attempt", "priority", "created_at")
QUEUE_COLUMNS = ("name", "status", "depth", "paused", "created_at")
CRON_COLUMNS = ("name", "expression", "timezone", "enabled", "next_run_at", "last_run_at")
WORKFLOW_COLUMNS = ("id", "name", "type", "state", "created_at")

_OPTIONS: dict[str, Any] = {"no_args_is_help": True}
jobs = typer.Typer(help="Jobs of a running server.", **_OPTIONS)
queues = typer.Typer(help="Queues of a running server.", **_OPTIONS)
dlq = typer.Typer(help="Dead letters of a running server.", **_OPTIONS)
cron = typer.Typer(help="Cron entries of a running server.", **_OPTIONS)
workflows = typer.Typer(help="Workflows of a running server.", **_OPTIONS)


def _asked(server: Server, ask: Ask) -> dict[str, Any]:
    try:
        return server.answer(ask)
    except AskedInVainError as error:
        raise typer.Exit(complain(error)) from error


def _list(server: Server, ask: Ask, rows: str, columns: tuple[str, ...], json: bool) -> None:
    body = _asked(server, ask)
    if wants_json(json):
        print_json(body)
        return
    print_rows(body.get(rows, []), columns)
    cursor = (body.get("pagination") or {}).get("next_cursor")
    print(f"{body.get('total', 0)} in all." + (f" Go on with --cursor {cursor}" if cursor else ""))


def _one(server: Server, ask: Ask, part: str, json: bool) -> None:
    body = _asked(server, ask)
    if wants_json(json):
        print_json(body)
        return
    inner = body.get(part)
    print_fields(inner if isinstance(inner, dict) else body)


def _sure(question: str, yes: bool) -> None:
    if not yes:
        typer.confirm(question, abort=True, err=True)


# ------------------------------------------------------------------ jobs


@jobs.command("list")
def list_jobs(
    url: Url = URL_DEFAULT,
    key: Key = None,
    queue: Queue = None,
    state: State = None,
    job_type: Type = None,
    limit: Limit = LIST_DEFAULT,
    cursor: Cursor = None,
    json: Json = False,
) -> None:
    """List jobs."""
    query = {"queue": queue, "state": state, "type": job_type, "limit": limit, "cursor": cursor}
    _list(Server(url, key), Ask("GET", ("jobs",), query), "jobs", JOB_COLUMNS, json)


@jobs.command("show")
def show_job(job_id: Id, url: Url = URL_DEFAULT, key: Key = None, json: Json = False) -> None:
    """Show all fields of a job."""
    _one(Server(url, key), Ask("GET", ("jobs", job_id)), "job", json)


@jobs.command("cancel")
def cancel_job(
    job_id: Id, url: Url = URL_DEFAULT, key: Key = None, reason: Reason = None, json: Json = False
) -> None:
    """Cancel a job."""
    _one(Server(url, key), Ask("DELETE", ("jobs", job_id), {"reason": reason}), "job", json)


@jobs.command("retry")
def retry_job(job_id: Id, url: Url = URL_DEFAULT, key: Key = None, json: Json = False) -> None:
    """Make a job that has ended available again."""
    _one(Server(url, key), Ask("POST", ("jobs", job_id, "retry")), "job", json)


# ------------------------------------------------------------------ queues


@queues.command("list")
def list_queues(
    url: Url = URL_DEFAULT, key: Key = None, limit: Limit = LIST_DEFAULT, cursor: Cursor = None, json: Json = False
) -> None:
    """List queues."""
    ask = Ask("GET", ("queues",), {"limit": limit, "cursor": cursor})
    _list(Server(url, key), ask, "queues", QUEUE_COLUMNS, json)


@queues.command("stats")
def queue_stats(name: Name, url: Url = URL_DEFAULT, key: Key = None, json: Json = False) -> None:
    """Show how a queue is doing."""
    _one(Server(url, key), Ask("GET", ("queues", name, "stats")), "stats", json)


@queues.command("pause")
def pause_queue(name: Name, url: Url = URL_DEFAULT, key: Key = None, json: Json = False) -> None:
    """Give out no more jobs of a queue."""
    _one(Server(url, key), Ask("POST", ("queues", name, "pause")), "queue", json)


@queues.command("resume")
def resume_queue(name: Name, url: Url = URL_DEFAULT, key: Key = None, json: Json = False) -> None:
    """Give out jobs of a paused queue again."""
    _one(Server(url, key), Ask("POST", ("queues", name, "resume")), "queue", json)


@queues.command("purge")
def purge_queue(
    name: Name,
    url: Url = URL_DEFAULT,
    key: Key = None,
    state: Annotated[list[str] | None, typer.Option(help="Only jobs in this state; may be repeated.")] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Delete jobs of a queue."""
    _sure(f"Delete jobs of the queue {name} at {url}?", yes)
    body = {"states": state} if state else {}
    _one(Server(url, key), Ask("POST", ("queues", name, "purge"), body=body), "", json)


# ------------------------------------------------------------------ dead letters


@dlq.command("list")
def list_dead(
    url: Url = URL_DEFAULT,
    key: Key = None,
    queue: Queue = None,
    job_type: Type = None,
    limit: Limit = LIST_DEFAULT,
    cursor: Cursor = None,
    json: Json = False,
) -> None:
    """List dead letters, newest first."""
    query = {"queue": queue, "type": job_type, "limit": limit, "cursor": cursor}
    _list(Server(url, key), Ask("GET", ("dead-letter",), query), "jobs", JOB_COLUMNS, json)


@dlq.command("show")
def show_dead(job_id: Id, url: Url = URL_DEFAULT, key: Key = None, json: Json = False) -> None:
    """Show all fields of a dead letter."""
    _one(Server(url, key), Ask("GET", ("dead-letter", job_id)), "job", json)


@dlq.command("retry")
def retry_dead(job_id: Id, url: Url = URL_DEFAULT, key: Key = None, json: Json = False) -> None:
    """Make a dead letter available again."""
    _one(Server(url, key), Ask("POST", ("dead-letter", job_id, "retry")), "job", json)


@dlq.command("delete")
def delete_dead(job_id: Id, url: Url = URL_DEFAULT, key: Key = None, yes: Yes = False, json: Json = False) -> None:
    """Delete a dead letter."""
    _sure(f"Delete the dead letter {job_id} at {url}?", yes)
    _one(Server(url, key), Ask("DELETE", ("dead-letter", job_id)), "", json)


# ------------------------------------------------------------------ cron


@cron.command("list")
def list_cron(url: Url = URL_DEFAULT, key: Key = None, limit: Limit = LIST_DEFAULT, json: Json = False) -> None:
    """List cron entries."""
    _list(Server(url, key), Ask("GET", ("cron",), {"limit": limit}), "crons", CRON_COLUMNS, json)


@cron.command("show")
def show_cron(name: Name, url: Url = URL_DEFAULT, key: Key = None, json: Json = False) -> None:
    """Show all fields of a cron entry."""
    _one(Server(url, key), Ask("GET", ("cron", name)), "cron_job", json)


@cron.command("pause")
def pause_cron(name: Name, url: Url = URL_DEFAULT, key: Key = None, json: Json = False) -> None:
    """Let a cron entry make no more jobs."""
    _one(Server(url, key), Ask("POST", ("cron", name, "pause")), "cron_job", json)


@cron.command("resume")
def resume_cron(name: Name, url: Url = URL_DEFAULT, key: Key = None, json: Json = False) -> None:
    """Let a paused cron entry make jobs again."""
    _one(Server(url, key), Ask("POST", ("cron", name, "resume")), "cron_job", json)


@cron.command("trigger")
def trigger_cron(name: Name, url: Url = URL_DEFAULT, key: Key = None, json: Json = False) -> None:
    """Make a job of a cron entry now."""
    _one(Server(url, key), Ask("POST", ("cron", name, "trigger")), "job", json)


@cron.command("delete")
def delete_cron(name: Name, url: Url = URL_DEFAULT, key: Key = None, yes: Yes = False, json: Json = False) -> None:
    """Delete a cron entry."""
    _sure(f"Delete the cron entry {name} at {url}?", yes)
    _one(Server(url, key), Ask("DELETE", ("cron", name)), "", json)


# ------------------------------------------------------------------ workflows


@workflows.command("list")
def list_workflows(
    url: Url = URL_DEFAULT,
    key: Key = None,
    state: State = None,
    limit: Limit = LIST_DEFAULT,
    cursor: Cursor = None,
    json: Json = False,
) -> None:
    """List workflows."""
    ask = Ask("GET", ("workflows",), {"state": state, "limit": limit, "cursor": cursor})
    _list(Server(url, key), ask, "workflows", WORKFLOW_COLUMNS, json)


@workflows.command("show")
def show_workflow(workflow_id: Id, url: Url = URL_DEFAULT, key: Key = None, json: Json = False) -> None:
    """Show a workflow and its steps."""
    _one(Server(url, key), Ask("GET", ("workflows", workflow_id)), "workflow", json)


@workflows.command("cancel")
def cancel_workflow(
    workflow_id: Id, url: Url = URL_DEFAULT, key: Key = None, reason: Reason = None, json: Json = False
) -> None:
    """Cancel a workflow and what it still has to do."""
    ask = Ask("DELETE", ("workflows", workflow_id), {"reason": reason})
    _one(Server(url, key), ask, "workflow", json)


def attach(cli: typer.Typer) -> None:
    """Make them groups of ``ojs-stream``."""
    groups = {"jobs": jobs, "queues": queues, "dlq": dlq, "cron": cron, "workflows": workflows}
    for name, group in groups.items():
        cli.add_typer(group, name=name)
