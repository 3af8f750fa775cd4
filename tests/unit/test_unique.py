"""What clients write as ``unique``: the fingerprint, the rule, and every way to get it wrong."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from ojs_stream.core.canonical import canonical, load_exact
from ojs_stream.core.homes import home_of
from ojs_stream.core.records import Retention, UniqueRule
from ojs_stream.core.unique import DEFAULT_STATES, deciding_home
from ojs_stream.core.validation import Rules, parse_job
from ojs_stream.errors import RefusedError
from tests.support.builders import client_id, job, queue_at, unique

HOMES = 8
RULES = Rules(retention=Retention(1, 2, 3, 4), homes=HOMES)


def rule_of(rule: Any, **fields: Any) -> UniqueRule:
    """The rule of a job as a client would send it."""
    body = {"type": "a.b", "args": [], **fields, "unique": rule}
    made = parse_job(json.dumps(body).encode(), RULES, lambda _queue: "id").unique
    assert made is not None
    return made


def key_of(rule: Any, **fields: Any) -> str:
    return rule_of(rule, **fields).key


def canonical_of(text: str) -> str:
    return canonical(load_exact(text.encode()))


# -- canonical JSON -------------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


def _turned(value: Any) -> Any:
    """The same value with the members of its objects in reverse."""
    if isinstance(value, dict):
        return {name: _turned(value[name]) for name in reversed(value)}
    return [_turned(item) for item in value] if isinstance(value, list) else value


@given(VALUES, st.sampled_from([None, 1, 7]))
def test_the_order_of_members_and_space_do_not_matter(value: Any, indent: int | None) -> None:
    plain = json.dumps(value).encode("ascii")
    turned = json.dumps(_turned(value), indent=indent, ensure_ascii=False).encode()
    assert canonical(load_exact(plain)) == canonical(load_exact(turned))


def _identity(value: Any) -> Any:
    """What two values have in common if and only if they are the same JSON value (before NFC)."""
    if isinstance(value, dict):
        return frozenset((name, _identity(item)) for name, item in value.items())
    if isinstance(value, list):
        return tuple(_identity(item) for item in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number", Decimal(json.dumps(value))
    return type(value), value


ASCII = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('ab"\\'),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2),
    max_leaves=5,
)


@given(ASCII, ASCII)
def test_values_have_one_text_if_and_only_if_they_are_equal(one: Any, other: Any) -> None:
    same = canonical_of(json.dumps(one)) == canonical_of(json.dumps(other))
    assert same == (_identity(one) == _identity(other))


@given(st.integers(-(10**25), 10**25), st.integers(-30, 30), st.integers(0, 5))
def test_a_number_is_its_value_however_it_is_written(digits: int, power: int, zeros: int) -> None:
    written = canonical_of(f"{digits}e{power}")
    assert canonical_of(f"{digits * 10**zeros}E{power - zeros}") == written
    assert Decimal(written) == Decimal(digits).scaleb(power)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("1.0", "1"),
        ("-0.0", "0"),
        ("0e99999999999999999999999", "0"),
        ("18446744073709551617", "18446744073709551617"),
        ("1e21", "1" + "0" * 21),
        ("1e22", "1e22"),
        ("0.10", "1e-1"),
        ("1e400", "1e400"),
        ("1e99999999999999999999999", "1e99999999999999999999999"),
        ('"e\\u0301"', '"é"'),
        ('{"b":1,"a":[true,null]}', '{"a":[true,null],"b":1}'),
        ('{"\\ud83d\\ude00":1,"\\uffff":2}', '{"😀":1,"\uffff":2}'),
    ],
)
def test_canonical_texts(text: str, want: str) -> None:
    assert canonical_of(text) == want


def test_large_numbers_that_are_one_double_are_two_fingerprints() -> None:
    keys = {key_of({"keys": ["args"]}, args=[2**64 + n]) for n in range(3)}
    assert len(keys) == 3


# -- the fingerprint ------------------------------------------------------------------------------------------


def test_by_default_the_type_alone_counts() -> None:
    base = key_of({}, queue="a", args=[1], meta={"x": 1})
    assert key_of({}, queue="b", args=[2]) == base
    assert key_of({}, type="a.c") != base
    assert key_of({"keys": []}) == key_of({"keys": ["type"]}) == base


def test_type_counts_whatever_the_keys_say() -> None:
    assert key_of({"keys": ["args"]}) == key_of({"keys": ["type", "args"]}) != key_of({"keys": ["args"]}, type="x")


@pytest.mark.parametrize(
    ("rule", "changes", "same"),
    [
        ({"keys": ["queue"]}, {"queue": "other"}, False),
        ({"keys": ["queue"]}, {"args": [9]}, True),
        ({"keys": ["args"]}, {"args": [{"user": 1, "x": 3}]}, False),
        ({"keys": ["args"], "args_keys": ["user"]}, {"args": [{"x": 3, "user": 1}, "more"]}, True),
        ({"keys": ["args"], "args_keys": ["user"]}, {"args": [{"user": 2, "x": 2}]}, False),
        ({"args_keys": ["user"]}, {"args": [{"user": 2, "x": 2}]}, False),
        ({"key": ["user"]}, {"args": [{"user": 1, "x": 3}]}, True),
        ({"key": ["user"]}, {"args": [{"user": "1", "x": 2}]}, False),
        ({"key": ["type", "queue", "args"]}, {"meta": {"tenant": 7}}, True),
        ({"key": ["type", "queue", "args"]}, {"queue": "other"}, False),
        ({"key": "queue"}, {"queue": "other"}, False),
        ({"key": "order-77"}, {"queue": "other", "args": [9]}, True),
        ({"key": "order-77"}, {"type": "other"}, False),
        ({"keys": ["meta"], "meta_keys": ["tenant"]}, {"meta": {"tenant": "a", "trace": 2}}, True),
        ({"keys": ["meta"], "meta_keys": ["tenant"]}, {"meta": {"tenant": "b", "trace": 1}}, False),
        ({"meta_keys": ["tenant"]}, {"meta": {}}, False),
    ],
)
def test_what_the_fingerprint_is_made_of(rule: Any, changes: Any, same: bool) -> None:
    usual = {"queue": "q", "args": [{"user": 1, "x": 2}], "meta": {"tenant": "a", "trace": 1}}
    assert (key_of(rule, **usual) == key_of(rule, **{**usual, **changes})) == same


def test_own_keys_differ_from_each_other_and_from_dimensions() -> None:
    assert len({key_of({"key": key}) for key in ("x", "y", "type", "args")}) == 4


def test_the_args_are_taken_from_their_bytes() -> None:
    body = b'{"type":"a.b","args":[%s],"unique":{"keys":["args"]}}'
    keys = {parse_job(body % text, RULES, str).unique.key for text in (b"1", b" 1.0 ", b"10e-1")}  # type: ignore[union-attr]
    assert len(keys) == 1


def test_the_lock_is_where_the_job_is_when_the_queue_counts() -> None:
    assert rule_of({"keys": ["queue", "args"]}, queue="emails").home == home_of("emails", HOMES)
    other = rule_of({"keys": ["args"]}, queue="emails")
    assert other.home == home_of(other.key, HOMES)


# -- the rest of the rule -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "period_ms"),
    [
        ({}, 0),
        ({"period": "PT1M"}, 60_000),
        ({"period": None, "period_ms": 1_500}, 1_500),
        ({"within": "1h"}, 3_600_000),
        ({"period": "PT2S", "period_ms": 5}, 2_000),
    ],
)
def test_periods(given: Any, period_ms: int) -> None:
    assert rule_of(given).period_ms == period_ms


@pytest.mark.parametrize(
    ("given", "want"),
    [(None, "reject"), ("use_existing", "ignore"), ("replace", "replace"), ("ignore", "ignore")],
)
def test_conflicts(given: str | None, want: str) -> None:
    assert rule_of({"on_conflict": given}).on_conflict == want


def test_states() -> None:
    assert rule_of({}).states == rule_of({"states": []}).states == DEFAULT_STATES
    assert rule_of({"states": ["completed", "active"]}).states == ("active", "completed")


def test_options_win_and_the_rule_is_given_back_as_it_was_written() -> None:
    body = b'{"type":"a.b","args":[],"unique":{"period_ms":1},"options":{"queue":"q","unique":{"keys":["queue"]}}}'
    made = parse_job(body, RULES, lambda _queue: "id")
    assert made.unique is not None
    assert (made.unique.home, made.unique.period_ms) == (home_of("q", HOMES), 0)
    assert b'"unique":{"keys":["queue"]}' in bytes(made.extra)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ([], "unique"),
        ({"argz": 1}, "unique"),
        ({"keys": ["argz"]}, "unique.keys"),
        ({"keys": ["Type"]}, "unique.keys"),
        ({"keys": "type"}, "unique.keys"),
        ({"keys": ["type", "type"]}, "unique.keys"),
        ({"keys": [1]}, "unique.keys"),
        ({"key": ""}, "unique.key"),
        ({"key": "x" * 2_000}, "unique.key"),
        ({"key": 7}, "unique.key"),
        ({"key": ["nobody"]}, "unique.args_keys"),
        ({"keys": ["args"], "args_keys": ["nobody"]}, "unique.args_keys"),
        ({"args_keys": [f"n{n}" for n in range(200)]}, "unique.args_keys"),
        ({"keys": ["meta"]}, "unique.meta_keys"),
        ({"keys": ["meta"], "meta_keys": []}, "unique.meta_keys"),
        ({"period": 5}, "unique.period"),
        ({"period": "soon"}, "unique.period"),
        ({"period": "PT0S"}, "unique.period"),
        ({"within": "-1h"}, "unique.within"),
        ({"period_ms": 0}, "unique.period_ms"),
        ({"period_ms": True}, "unique.period_ms"),
        ({"states": ["waiting"]}, "unique.states"),
        ({"states": "active"}, "unique.states"),
        ({"states": [{}]}, "unique.states"),
        ({"on_conflict": "merge"}, "unique.on_conflict"),
        ({"on_conflict": 1}, "unique.on_conflict"),
    ],
)
def test_every_violation_names_its_field(rule: Any, field: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        rule_of(rule, args=[{"user": 1}])
    assert (refusal.value.code, refusal.value.details["field"]) == ("invalid_request", field)
    assert field in refusal.value.message


# -- who decides ----------------------------------------------------------------------------------------------


def test_an_enqueue_is_decided_where_the_fewest_hops_are() -> None:
    queue = queue_at(1, HOMES)
    plain = job(queue, homes=HOMES)
    locked = job(queue, homes=HOMES, unique=unique(home=2))
    chosen = job(queue, id=client_id(HOMES, 3), args=Raw(b"[]"), unique=unique(home=4))
    assert deciding_home([plain], HOMES) == 1
    assert deciding_home([plain, locked], HOMES) == 2
    assert deciding_home([plain, locked, chosen], HOMES) == 3
