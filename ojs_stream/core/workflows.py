"""Bytes of a workflow request to the steps of ``StartWorkflow``: every form that clients send (OJS.md 5.8).

A chain, a group, a batch (each may nest the others), or a graph of steps with ``depends_on``. All of them become
one list: the members of every flow stand together, its callbacks behind them, what is nested comes later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from msgspec import structs

from ojs_stream.core.commands import NewJob, NewStep
from ojs_stream.core.envelope import (
    Raws,
    Values,
    bad_field,
    bad_payload,
    load_object,
    raw_array,
    raw_object,
    too_large,
)
from ojs_stream.core.records import Flow, FlowKind
from ojs_stream.core.validation import Defaults, NewId, Rules, parse_member
from ojs_stream.errors import RefusedError

STEPS_MAX = 1_000
"""So many jobs and nested workflows a workflow may have; callbacks come on top, three for a batch."""
LEVELS_MAX = 5
"""A workflow may be nested so deep, itself included (the specification asks for at least three)."""
NAME_CHARS_MAX = 255
OPTIONS_BYTES_MAX = 16 * 1024
"""The options of a workflow are those of each of its steps."""
LEVEL_DEPTH = 4
"""A level of nesting adds so many levels of JSON at most."""
CALLBACKS = ("on_complete", "on_success", "on_failure")
MEMBER_NAMES = {
    "chain": ("steps", "jobs", "tasks"),
    "group": ("jobs", "tasks", "steps"),
    "batch": ("jobs", "tasks", "steps"),
}
"""Where the members of a flow may stand; the first that is given counts."""


class WorkflowRequest(NamedTuple):
    """A checked workflow. ``queue`` is that of its first job: the workflow lives at the queue's home."""

    name: str
    flow: Flow
    steps: tuple[NewStep, ...]
    queue: str


@dataclass
class _Node:
    """A step as it is read: a job, or a flow with members and callbacks. ``path`` is for error messages."""

    id: str
    type: str
    path: str
    job: NewJob | None = None
    kind: FlowKind | None = None
    members: list[_Node] = field(default_factory=list)
    callbacks: dict[str, _Node] = field(default_factory=dict)
    depends: list[str] | None = None
    """The ids in ``depends_on`` of a step in a graph."""


def parse_workflow(body: bytes, rules: Rules, new_id: NewId) -> WorkflowRequest:
    """The workflow of a request. ``RefusedError`` names what is wrong, ``details.path`` says where."""
    values, raws = load_object(body, rules.json_depth_max + LEVEL_DEPTH * LEVELS_MAX)
    root = _Reader(rules, new_id, _defaults(values, raws)).root(values, raws)
    steps, flow = _numbered(root)
    first = next(step.job for step in steps if step.job is not None)
    return WorkflowRequest(_text(values, "name"), flow, steps, first.queue)


def _defaults(values: Values, raws: Raws) -> Defaults | None:
    options = values.get("options")
    if options is None:
        return None
    if type(options) is not dict:
        raise bad_field("options", "must be an object")
    size = memoryview(raws["options"]).nbytes
    if size > OPTIONS_BYTES_MAX:
        raise too_large("PayloadTooLarge", "options", size, OPTIONS_BYTES_MAX)
    return options, raw_object(raws["options"])


def _text(values: Values, name: str) -> str:
    text = values.get(name)
    if text is None:
        return ""
    if type(text) is not str or len(text) > NAME_CHARS_MAX:
        raise bad_field(name, f"must be a string of at most {NAME_CHARS_MAX} characters")
    return text


class _Reader:
    """Reads the tree of one request."""

    def __init__(self, rules: Rules, new_id: NewId, defaults: Defaults | None) -> None:
        self._rules = rules
        self._new_id = new_id
        self._defaults = defaults
        self._count = 0

    def root(self, values: Values, raws: Raws) -> _Node:
        """The workflow itself: typed, or a graph."""
        kind = values.get("type")
        if kind in MEMBER_NAMES:
            return self._flow(values, raws, _Node("", kind, ""), 1)
        if kind not in (None, "dag"):
            raise bad_field("type", "must be chain, group or batch, or be absent for steps with depends_on")
        return self._graph(values, raws)

    # -- typed --------------------------------------------------------------------------------------------

    def _flow(self, values: Values, raws: Raws, node: _Node, level: int) -> _Node:
        if level > LEVELS_MAX:
            raise _wrong(node.path, f"is nested deeper than {LEVELS_MAX} levels")
        node.kind = values["type"]
        name = next((each for each in MEMBER_NAMES[node.type] if values.get(each) is not None), None)
        prefix = f"{node.id}." if node.path else ""
        for place, (item, raw) in enumerate(_items(values, raws, name or MEMBER_NAMES[node.type][0], node.path)):
            path = _inside(node.path, f"{name}[{place}]")
            node.members.append(self._member(item, raw_object(raw), f"{prefix}{place}", path, level, place))
        self._callbacks(values, raws, node, prefix)
        return node

    def _member(self, values: Values, raws: Raws, usual: str, path: str, level: int, place: int) -> _Node:
        self._count += 1
        if self._count > STEPS_MAX:
            raise _wrong("steps", f"are more than {STEPS_MAX}, nested ones included")
        step_id = _id_of(values, path) or usual
        kind = values.get("type")
        if kind in MEMBER_NAMES and any(type(values.get(name)) is list for name in MEMBER_NAMES[kind]):
            return self._flow(values, raws, _Node(step_id, kind, path), level + 1)
        return self._job(values, raws, step_id, path, place)

    def _job(self, values: Values, raws: Raws, step_id: str, path: str, place: int | None) -> _Node:
        """A step's own ``id`` names the step: its job has one that the server makes."""
        own = {name: value for name, value in values.items() if name not in ("id", "depends_on")}
        slices = {name: raws[name] for name in own}
        try:
            job = parse_member(own, slices, self._rules, self._new_id, self._defaults)
        except RefusedError as error:
            raise _placed(error, path, place) from None
        return _Node(step_id, job.type, path, job=job)

    def _callbacks(self, values: Values, raws: Raws, node: _Node, prefix: str) -> None:
        """Under ``callbacks``, or beside the jobs as the admin UI has them."""
        given: dict[str, tuple[Any, Any, str]] = {
            name: (values[name], raws[name], name) for name in CALLBACKS if values.get(name) is not None
        }
        inner = values.get("callbacks")
        if inner is not None:
            if type(inner) is not dict:
                raise _wrong(_inside(node.path, "callbacks"), "must be an object")
            slices = raw_object(raws["callbacks"])
            given.update(
                (name, (inner[name], slices[name], f"callbacks.{name}"))
                for name in CALLBACKS
                if inner.get(name) is not None
            )
        if given and node.kind != "batch":
            raise _wrong(_inside(node.path, "callbacks"), f"belong to a batch, this is a {node.kind}")
        if not given and node.kind == "batch":
            raise _wrong(_inside(node.path, "callbacks"), f"of a batch must have one of {', '.join(CALLBACKS)}")
        for name, (item, raw, place) in given.items():
            path = _inside(node.path, place)
            _object(item, path)
            node.callbacks[name] = self._job(item, raw_object(raw), f"{prefix}{name}", path, None)

    # -- graphs -------------------------------------------------------------------------------------------

    def _graph(self, values: Values, raws: Raws) -> _Node:
        root = _Node("", "dag", "", kind="dag")
        callbacks: list[str] = []
        for place, (item, raw) in enumerate(_items(values, raws, "steps", "")):
            path = f"steps[{place}]"
            node = self._member(item, raw_object(raw), str(place), path, 1, place)
            node.depends = _depends_of(item, path)
            root.members.append(node)
            callbacks.append(_callback_name(item, node.id))
        _check_graph(root.members)
        _take_callbacks(root, callbacks)
        return root


def _items(values: Values, raws: Raws, name: str, path: str) -> list[tuple[Values, Any]]:
    items = values.get(name)
    if type(items) is not list or not items:
        raise _wrong(_inside(path, name), "must be a non-empty array of jobs")
    for place, item in enumerate(items):
        _object(item, _inside(path, f"{name}[{place}]"))
    return list(zip(items, raw_array(raws[name]), strict=True))


def _object(item: Any, path: str) -> None:
    if type(item) is not dict:
        raise bad_payload(f"{path} must be a JSON object")


def _id_of(values: Values, path: str) -> str:
    step_id = values.get("id")
    if step_id is None:
        return ""
    if type(step_id) is not str or not 0 < len(step_id) <= NAME_CHARS_MAX:
        raise _wrong(f"{path}.id", f"must be a string of 1 to {NAME_CHARS_MAX} characters")
    return step_id


def _depends_of(values: Values, path: str) -> list[str]:
    depends = values.get("depends_on")
    if depends is None:
        return []
    if type(depends) is not list or any(type(each) is not str for each in depends):
        raise _wrong(f"{path}.depends_on", "must be an array of step ids")
    return list(dict.fromkeys(depends))


def _callback_name(values: Values, step_id: str) -> str:
    """Which callback a step of a graph may be: the SDKs send those of a batch as steps (CLIENTS.md trap 4)."""
    options = values.get("options")
    named = options.get("callback_type") if type(options) is dict else None
    name = str(named or step_id).replace("-", "_")
    return name if name in CALLBACKS else ""


def _take_callbacks(root: _Node, names: list[str]) -> None:
    """A step that may be a callback is one if it depends on every step that may not."""
    jobs = [node for node, name in zip(root.members, names, strict=True) if not name]
    wanted = {node.id for node in jobs}
    for node, name in zip(list(root.members), names, strict=True):
        if name and name not in root.callbacks and jobs and set(node.depends or ()) == wanted:
            root.callbacks[name] = node
            root.members.remove(node)
    taken = {node.id for node in root.callbacks.values()}
    for node in root.members:
        if taken & set(node.depends or ()):
            raise _wrong(f"{node.path}.depends_on", "names a callback, which nothing can wait for")


def _check_graph(nodes: list[_Node]) -> None:
    """Ids are unique, dependencies are steps, and nothing waits for itself."""
    _unique(nodes)
    open_: dict[str, int] = {node.id: len(node.depends or ()) for node in nodes}
    dependants: dict[str, list[str]] = {node.id: [] for node in nodes}
    for node in nodes:
        for depended in node.depends or ():
            if depended not in dependants:
                raise _wrong(f"{node.path}.depends_on", f"names '{depended[:100]}', which is no step")
            dependants[depended].append(node.id)
    ready = deque(step_id for step_id, count in open_.items() if not count)
    while ready:
        for step_id in dependants[ready.popleft()]:
            open_[step_id] -= 1
            if not open_[step_id]:
                ready.append(step_id)
    circular = next((step_id for step_id, count in open_.items() if count), None)
    if circular is not None:
        raise _wrong("steps", f"form a cycle: '{circular[:100]}' waits for itself")


def _unique(nodes: list[_Node]) -> None:
    seen: set[str] = set()
    for node in nodes:
        if node.id in seen:
            raise _wrong(f"{node.path}.id", f"'{node.id[:100]}' stands twice")
        seen.add(node.id)


# -- numbers --------------------------------------------------------------------------------------------------


def _numbered(root: _Node) -> tuple[tuple[NewStep, ...], Flow]:
    """The steps in their places, level by level, and the flow of the workflow itself."""
    steps: list[NewStep] = []
    queue: deque[tuple[int, _Node]] = deque([(-1, root)])
    whole: Flow | None = None
    seen: list[_Node] = []
    while queue:
        number, node = queue.popleft()
        flow = _flow_of(node, len(steps))
        if number < 0:
            whole = flow
        else:
            steps[number] = structs.replace(steps[number], flow=flow)
        inside = [*node.members, *node.callbacks.values()]
        seen += inside
        queue.extend((len(steps) + place, each) for place, each in enumerate(inside) if each.kind)
        steps += _steps_of(node, number, len(steps))
    _unique(seen)
    assert whole is not None
    return tuple(steps), whole


def _flow_of(node: _Node, first: int) -> Flow:
    assert node.kind is not None
    count = len(node.members)
    callbacks = {name: first + count + place for place, name in enumerate(node.callbacks)}
    return structs.replace(Flow(kind=node.kind, first=first, count=count, open=count), **callbacks)


def _steps_of(node: _Node, parent: int, first: int) -> list[NewStep]:
    places = {each.id: first + place for place, each in enumerate(node.members)}
    made = [
        NewStep(
            id=each.id,
            type=each.type,
            parent=parent,
            depends=_depends(node, place, first, places),
            job=each.job,
        )
        for place, each in enumerate(node.members)
    ]
    for name, each in node.callbacks.items():
        made.append(NewStep(id=each.id, type=each.type, parent=parent, callback=name, job=each.job))
    return made


def _depends(node: _Node, place: int, first: int, places: dict[str, int]) -> tuple[int, ...]:
    if node.kind == "chain":
        return (first + place - 1,) if place else ()
    return tuple(places[step_id] for step_id in node.members[place].depends or ())


# -- refusals -------------------------------------------------------------------------------------------------


def _inside(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _wrong(path: str, rule: str) -> RefusedError:
    return bad_field(path, rule)


def _placed(error: RefusedError, path: str, place: int | None) -> RefusedError:
    details = {**error.details, "path": path}
    if place is not None:
        details["index"] = place
    return RefusedError(error.code, f"{path}: {error.message}", details=details, kind=error.kind)
