"""Requests for workflows: every form that clients send, and what is refused with which words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ojs_stream.core import workflows
from ojs_stream.core.homes import home_in_id
from ojs_stream.core.validation import Rules
from ojs_stream.core.workflows import WorkflowRequest, parse_workflow
from ojs_stream.errors import RefusedError
from tests.support.builders import KEEP, server_id

JOB = {"type": "a.b", "args": [1]}


def parse(body: Any, **rules: Any) -> WorkflowRequest:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_workflow(data, Rules(retention=KEEP, **rules), lambda queue: server_id(len(queue)))


def refused(body: Any, **rules: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        parse(body, **rules)
    return caught.value


def test_a_chain_is_a_list_of_steps_that_depend_on_the_one_before() -> None:
    asked = parse({"type": "chain", "name": "c", "steps": [{**JOB, "options": {"queue": "abc"}}, JOB, JOB]})
    assert (asked.name, asked.queue, asked.flow.kind, asked.flow.count, asked.flow.open) == (
        "c",
        "abc",
        "chain",
        3,
        3,
    )
    assert [(step.id, step.depends) for step in asked.steps] == [("0", ()), ("1", (0,)), ("2", (1,))]
    assert home_in_id(asked.steps[0].job.id) == len("abc"), "the id carries the home that its queue has"


@pytest.mark.parametrize("name", ["jobs", "tasks", "steps"])
@pytest.mark.parametrize("kind", ["group", "batch", "chain"])
def test_members_may_stand_under_any_of_their_names(kind: str, name: str) -> None:
    callbacks = {"callbacks": {"on_complete": JOB}} if kind == "batch" else {}
    assert parse({"type": kind, name: [JOB, JOB], **callbacks}).flow.count == 2


def test_callbacks_stand_behind_the_jobs_inside_or_beside_callbacks() -> None:
    for callbacks in (
        {"callbacks": {"on_failure": JOB, "on_success": JOB}},
        {"on_failure": JOB, "on_success": JOB},
    ):
        asked = parse({"type": "batch", "jobs": [JOB, JOB], **callbacks})
        steps = {step.callback: number for number, step in enumerate(asked.steps) if step.callback}
        assert steps == {"on_success": asked.flow.on_success, "on_failure": asked.flow.on_failure}
        assert (asked.flow.on_complete, min(steps.values())) == (0, 2)


def test_a_name_is_optional_and_a_steps_id_is_its_own_name_not_its_jobs() -> None:
    asked = parse({"type": "chain", "steps": [{**JOB, "id": "mine"}, JOB]})
    assert (asked.name, [step.id for step in asked.steps]) == ("", ["mine", "1"])
    assert not any(step.job.client_id for step in asked.steps if step.job)


def test_what_is_nested_comes_later_and_the_members_of_a_flow_stand_together() -> None:
    inner = {"type": "chain", "steps": [JOB, JOB]}
    asked = parse({"type": "group", "jobs": [inner, JOB, {"type": "batch", "jobs": [JOB], "on_complete": JOB}]})
    assert [(step.id, step.parent) for step in asked.steps] == [
        ("0", -1),
        ("1", -1),
        ("2", -1),
        ("0.0", 0),
        ("0.1", 0),
        ("2.0", 2),
        ("2.on_complete", 2),
    ]
    chain, batch = asked.steps[0].flow, asked.steps[2].flow
    assert chain is not None
    assert list(chain.members) == [3, 4]
    assert batch is not None
    assert (list(batch.members), batch.callbacks) == ([5], [6])
    assert asked.steps[4].depends == (3,)


def test_a_job_whose_type_is_chain_is_a_job() -> None:
    asked = parse({"type": "group", "jobs": [{"type": "chain", "args": []}]})
    assert asked.steps[0].job is not None


def test_a_graph_keeps_the_order_of_its_steps_and_of_their_dependencies() -> None:
    asked = parse(
        {
            "name": "g",
            "steps": [
                {"id": "z", **JOB, "depends_on": ["y", "x", "y"]},
                {"id": "x", **JOB},
                {"id": "y", **JOB, "depends_on": []},
            ],
        }
    )
    assert asked.flow.kind == "dag"
    assert [(step.id, step.depends) for step in asked.steps] == [("z", (2, 1)), ("x", ()), ("y", ())]


@pytest.mark.parametrize(
    ("step", "taken"),
    [
        ({"id": "on-complete", "depends_on": ["a", "b"]}, True),
        ({"id": "on_complete", "depends_on": ["b", "a"]}, True),
        ({"id": "c", "depends_on": ["a", "b"], "options": {"callback_type": "on_complete"}}, True),
        ({"id": "on_complete", "depends_on": ["a"]}, False),
        ({"id": "on_complete"}, False),
        ({"id": "complete", "depends_on": ["a", "b"]}, False),
    ],
)
def test_a_step_of_a_graph_is_a_callback_if_it_waits_for_all_and_is_called_so(
    step: dict[str, Any], taken: bool
) -> None:
    asked = parse({"steps": [{"id": "a", **JOB}, {"id": "b", **JOB}, {**JOB, **step}]})
    assert bool(asked.flow.on_complete) is taken
    assert asked.flow.count == (2 if taken else 3)


def test_raw_bytes_of_a_job_stay_what_they_are() -> None:
    body = (
        b'{"type":"chain","options":{"queue":"q"},"steps":[{"type":"a","args":[18446744073709551616, "\\u00e9"]}]}'
    )
    (step,) = parse(body).steps
    assert bytes(step.job.args) == b'[18446744073709551616, "\\u00e9"]'


def test_the_workflows_options_are_defaults_below_the_steps_own() -> None:
    asked = parse(
        {
            "type": "group",
            "options": {"queue": "w", "timeout_ms": 9, "retry": {"max_attempts": 7}, "tags": ["w"]},
            "jobs": [
                JOB,
                {**JOB, "timeout": 2, "queue": "mine"},
                {**JOB, "options": {"retry": {"max_attempts": 1}}},
            ],
        }
    )
    jobs = [step.job for step in asked.steps]
    assert [(job.queue, job.timeout_ms, job.retry.max_attempts) for job in jobs if job] == [
        ("w", 9, 7),
        ("mine", 2_000, 7),
        ("w", 9, 1),
    ]


BATCH = {"type": "batch", "jobs": [JOB]}
GRAPH = {"steps": [{"id": "a", **JOB, "depends_on": ["b"]}, {"id": "b", **JOB, "depends_on": ["a"]}]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "steps must be a non-empty array"),
        ({"type": "chain"}, "steps must be a non-empty array"),
        ({"type": "chain", "steps": []}, "steps must be a non-empty array"),
        ({"type": "group", "jobs": {}}, "jobs must be a non-empty array"),
        ({"type": "saga", "steps": [JOB]}, "type must be chain, group or batch"),
        ({"type": "chain", "name": 7, "steps": [JOB]}, "name must be a string"),
        ({"type": "chain", "options": [], "steps": [JOB]}, "options must be an object"),
        (BATCH, "callbacks of a batch must have one of on_complete"),
        ({**BATCH, "callbacks": {}}, "callbacks of a batch must have one of"),
        ({**BATCH, "callbacks": []}, "callbacks must be an object"),
        ({"type": "group", "jobs": [JOB], "on_success": JOB}, "callbacks belong to a batch, this is a group"),
        ({**BATCH, "callbacks": {"on_success": {"type": "x"}}}, "callbacks.on_success: args is required"),
        ({"steps": [{**JOB, "id": ""}]}, "steps[0].id must be a string of 1"),
        ({"steps": [{**JOB, "id": "a"}, {**JOB, "id": "a"}]}, "steps[1].id 'a' stands twice"),
        ({"steps": [{**JOB, "depends_on": "a"}]}, "steps[0].depends_on must be an array"),
        ({"steps": [{**JOB, "id": "a", "depends_on": ["b"]}]}, "names 'b', which is no step"),
        ({"steps": [{**JOB, "id": "a", "depends_on": ["a"]}]}, "'a' waits for itself"),
        (GRAPH, "form a cycle"),
        (
            {"steps": [{**JOB, "id": "a"}, {**JOB, "id": "on_complete", "depends_on": ["a", "b"]},
                       {**JOB, "id": "b"}, {**JOB, "id": "on-success", "depends_on": ["on_complete"]}]},
            "names a callback",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(body: Any, words: str) -> None:
    error = refused(body)
    assert error.code == "invalid_request"
    assert words in error.message


def test_a_bad_step_is_named_by_its_path_and_its_index() -> None:
    error = refused({"type": "chain", "steps": [JOB, {"type": "group", "jobs": [JOB, {"type": "Bad Type"}]}]})
    assert error.message.startswith("steps[1].jobs[1]: type must be")
    assert (error.details["path"], error.details["index"], error.details["field"]) == (
        "steps[1].jobs[1]",
        1,
        "type",
    )


def test_a_bad_retry_policy_is_the_422_that_it_is_elsewhere() -> None:
    error = refused({"type": "chain", "steps": [{**JOB, "options": {"retry": {"max_attempts": -1}}}]})
    assert error.kind == "validation_error"


def test_nesting_is_bounded() -> None:
    body: dict[str, Any] = JOB
    for _ in range(workflows.LEVELS_MAX):
        body = {"type": "chain", "steps": [body]}
    assert len(parse(body).steps) == workflows.LEVELS_MAX
    assert "nested deeper than 5 levels" in refused({"type": "group", "jobs": [body]}).message


def test_the_number_of_steps_is_bounded_nested_ones_included() -> None:
    jobs = [JOB] * (workflows.STEPS_MAX - 2)
    inner = {"type": "chain", "steps": [JOB]}
    assert len(parse({"type": "group", "jobs": [*jobs, inner]}).steps) == workflows.STEPS_MAX
    assert "are more than 1000" in refused({"type": "group", "jobs": [*jobs, inner, JOB]}).message


def test_large_options_and_large_jobs_are_refused() -> None:
    options = {"metadata": {"x": "y" * workflows.OPTIONS_BYTES_MAX}}
    assert refused({"type": "chain", "options": options, "steps": [JOB]}).code == "PayloadTooLarge"
    large = {"type": "a", "args": ["x" * 2_000]}
    assert refused({"type": "chain", "steps": [large]}, envelope_bytes_max=1_000).code == "PayloadTooLarge"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"type":"chain","steps":[1]}'])
def test_what_is_no_object_is_an_invalid_payload(body: bytes) -> None:
    assert refused(body).code == "invalid_payload"


def test_too_deep_json_is_refused() -> None:
    args = "[" * 200 + "]" * 200
    body = b'{"type":"chain","steps":[{"type":"a","args":[%s]}]}' % args.encode()
    assert refused(body).code == "invalid_payload"
