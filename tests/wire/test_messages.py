"""Attendance messages: drafted, frozen, and read strictly."""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiosk.errors import MessageError, TokenError
from kiosk.types import Direction, Stamp, Trust
from kiosk.wire import f2, message

KNOWN = ["V1", "A1", "A2", "D1", "E1", "S1", "F2_MODEL", "F3", "S2", "S3", "TS1", "SEQ", "CLK"]
KNOWN += ["K1", "SIG1"]
SHARES = st.floats(0.0, 1.0)
EMPLOYEES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    employee=st.none() | EMPLOYEES,
    kind=st.none() | st.sampled_from(Direction),
    score=st.none() | st.floats(-1.0, 1.0),
    quality=SHARES,
    liveness=st.none() | SHARES,
    utc_ms=st.integers(0, 253_402_300_799_999),
    trust=st.sampled_from(list(set(Trust) - {Trust.ESTIMATED})),
    signed=st.booleans(),
)
def test_a_punch_comes_back_as_it_was(
    freeze_punch, punch, signer, employee, kind, score, quality, liveness, utc_ms, trust, signed
):
    """What is drafted and frozen on the kiosk is what the server reads."""
    body = freeze_punch(
        signed=signed,
        stamp=Stamp(utc_ms, 0, "boot", trust),
        employee=employee,
        kind=kind,
        score=score,
        quality=quality,
        liveness=liveness,
    )
    read = message.parse(body)
    assert (read.event_id, read.device_id, read.seq) == (punch.event_id, "device-1", "epoch:7")
    assert (read.employee, read.kind, read.seen_ms) == (employee, kind, utc_ms)
    assert read.space == punch.embedding.space
    assert read.quality == pytest.approx(quality, abs=5.1e-5)
    assert (read.liveness is None) == (liveness is None)
    if liveness is not None:
        assert read.liveness == pytest.approx(liveness, abs=5.1e-5)
    assert (read.score is None) == (score is None or employee is None)
    if read.score is not None:
        assert read.score == pytest.approx(score, abs=5.1e-5)
    assert read.clock == {Trust.SYNCED: "synced", Trust.CORRECTED: "corrected"}.get(trust)
    assert read.seen_bounds_ms is None
    assert (read.key_id, read.signature is None) == (
        (signer.key_id, False) if signed else (None, True)
    )
    assert signer.message_is_authentic(read.fields) is signed
    np.testing.assert_array_equal(read.vector, f2.decode(json.loads(body)))


def test_the_body_is_exactly_the_protocols(frozen):
    """Names and forms of every field; F2_DIM is the only number."""
    fields = json.loads(frozen)
    assert sorted(fields) == sorted(["F2_DATA", "F2_META", "F2_DIM", *KNOWN])
    assert [name for name, value in fields.items() if not isinstance(value, str)] == ["F2_DIM"]
    assert (fields["V1"], fields["S1"], fields["A2"], fields["CLK"]) == (
        "1",
        "PRESENT",
        "IN",
        "synced",
    )
    assert (fields["F3"], fields["S2"], fields["S3"]) == ("0.8125", "0.5000", "0.7500")
    assert fields["TS1"] == "2026-09-21T14:13:20.123Z"


def test_a_punch_without_an_employee_names_nobody(freeze_punch):
    """No E1 means no F3 either: a score tells against whom."""
    fields = json.loads(freeze_punch(employee=None, score=0.9, kind=None, liveness=None))
    assert not {"E1", "F3", "A2", "S2"} & set(fields)


def test_an_estimated_time_comes_with_its_bounds(freeze_punch, seen):
    """The server reads the same bounds; without them nobody could."""
    bounds = (seen.utc_ms - 5, seen.utc_ms + 7_000)
    stamp = replace(seen, trust=Trust.ESTIMATED, bounds_ms=bounds)
    read = message.parse(freeze_punch(stamp=stamp))
    assert (read.clock, read.seen_bounds_ms) == ("estimated", bounds)
    with pytest.raises(MessageError, match="TS1_MIN, TS1_MAX: expected with CLK estimated"):
        message.parse(freeze_punch(stamp=replace(stamp, bounds_ms=None)))


def test_an_unsynced_clock_claims_nothing(freeze_punch, seen):
    """CLK is left out when nothing vouches for the clock."""
    assert "CLK" not in json.loads(freeze_punch(stamp=replace(seen, trust=Trust.UNSYNCED)))


def test_without_a_key_nothing_is_signed(freeze_punch):
    """K1 and SIG1 appear together or not at all."""
    assert not {"K1", "SIG1"} & set(json.loads(freeze_punch(signed=False)))


def test_freezing_is_repeatable_and_uses_the_time_it_is_given(punch, freeze_punch, seen):
    """One draft, moment and key give one body; a corrected moment gives the corrected TS1."""
    assert freeze_punch() == freeze_punch()
    corrected = json.loads(freeze_punch(stamp=replace(seen, utc_ms=seen.utc_ms + 60_000)))
    assert corrected["TS1"] == "2026-09-21T14:14:20.123Z"
    assert "TS1" not in json.loads(message.draft(punch))


@pytest.mark.parametrize(
    ("score", "text"),
    [(-0.00001, "0.0000"), (1.0000001, "1.0000"), (0.99995, "1.0000"), (-1.0, "-1.0000")],
)
def test_a_score_has_four_decimals_and_one_zero(freeze_punch, score, text):
    """Float noise beyond 1 is rounded away, and zero is never negative."""
    assert json.loads(freeze_punch(score=score))["F3"] == text


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"event_id": "7"}, "A1"),
        ({"event_id": "017f22e2-79b0-4cc3-98c4-dc0c0c07398f"}, "A1"),
        ({"employee": ""}, "E1"),
        ({"employee": "a\nb"}, "E1"),
        ({"employee": "\ud800"}, "E1"),
        ({"employee": "x" * 201}, "E1"),
        ({"score": 1.01}, "F3"),
        ({"score": math.nan}, "F3"),
        ({"quality": -0.1}, "S3"),
        ({"quality": math.inf}, "S3"),
        ({"liveness": 1.01}, "S2"),
    ],
)
def test_a_punch_that_no_server_could_read_is_refused_before_it_is_stored(punch, changes, name):
    """The draft is checked by the reader's own rules; the error never shows the employee."""
    with pytest.raises(MessageError, match=rf"^{name}: expected .* got ") as caught:
        message.draft(replace(punch, **changes))
    assert "xxx" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"seq": "7"}, "SEQ"),
        ({"seq": "e:07"}, "SEQ"),
        ({"seq": "e:-1"}, "SEQ"),
        ({"device_id": "a b"}, "D1"),
        ({"device_id": ""}, "D1"),
        ({"seen": Stamp(2**60, 0, "b", Trust.SYNCED)}, "TS1"),
        ({"seen": Stamp(-(2**60), 0, "b", Trust.SYNCED)}, "TS1"),
    ],
)
def test_a_body_that_no_server_could_read_is_never_frozen(punch, seen, changes, name):
    """Device, sequence and time are checked by the reader's own rules."""
    arguments = {"seen": seen, "seq": "e:7", "device_id": "d", "signer": None} | changes
    with pytest.raises(MessageError, match=rf"^{name}: expected .* got "):
        message.freeze(message.draft(punch), **arguments)


@pytest.mark.parametrize("draft", [b"", b"[]", b"{}", b'{"A1":"x"}', b"\x00"])
def test_a_damaged_draft_is_never_frozen(seen, draft):
    """What is not a draft gives a named error, not a message without an id."""
    with pytest.raises(MessageError, match="expected"):
        message.freeze(draft, seen=seen, seq="e:7", device_id="d", signer=None)


def altered(body: bytes, **changes: object) -> bytes:
    """Return a body with fields changed; Ellipsis removes one."""
    fields = json.loads(body) | changes
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


@pytest.mark.parametrize("name", ["A1", "D1", "S1", "TS1", "F2_DATA", "F2_META", "F2_DIM"])
def test_a_missing_required_field_is_named(frozen, name):
    """Idempotency needs A1 and D1, the record S1, TS1 and the token."""
    with pytest.raises(
        (MessageError, TokenError), match=rf"^{name}: expected .* got no such field"
    ):
        message.parse(altered(frozen, **{name: ...}))


@pytest.mark.parametrize("name", ["V1", "A2", "E1", "F2_MODEL", "F3", "S2", "S3", "SEQ", "CLK"])
def test_the_other_fields_may_be_absent(frozen, name):
    """A client that sends less than we do is still read."""
    assert name not in message.parse(altered(frozen, **{name: ...})).fields


WRONG = [
    *[(name, value) for name in (*KNOWN, "TS1_MIN", "TS1_MAX")
      for value in (None, 1, True, [], {}, "", "\n")],
    ("V1", "2"), ("V1", "01"),
    ("A1", "017F22E2-79B0-7CC3-98C4-DC0C0C07398F"), ("A1", "0" * 36),
    ("A1", "00000000-0000-0000-0000-000000000000"),
    ("A2", "in"), ("A2", "INOUT"), ("D1", "a b"), ("D1", "x" * 65), ("D1", "é"),
    ("E1", "x" * 201), ("E1", "a\x00b"), ("E1", "a\x85"), ("E1", "\ud800"),
    ("S1", "ABSENT"), ("S1", "present"),
    ("TS1", "2026-09-21T14:13:20Z"), ("TS1", "2026-09-21T14:13:20.123"),
    ("TS1", "2026-09-21 14:13:20.123Z"), ("TS1", "2026-09-21T14:13:20.123+00:00"),
    ("TS1", "2026-02-30T14:13:20.123Z"), ("TS1", "2026-13-01T14:13:20.123Z"),
    ("TS1", "2026-09-21T24:00:00.000Z"), ("TS1", "2026-09-21T23:59:60.000Z"),
    ("TS1", "0000-01-01T00:00:00.000Z"), ("TS1", "2026-09-21T14:13:20.123Z\n"),
    ("TS1", "٢٠26-09-21T14:13:20.123Z"),
    ("F2_MODEL", "a b"), ("F2_MODEL", "x" * 129),
    ("F3", "0.8"), ("F3", "0.81250"), ("F3", "1.0001"), ("F3", "+0.5000"), ("F3", ".5000"),
    ("F3", "NaN"), ("F3", "00.5000"), ("F3", "0,5000"), ("F3", 0.5),
    ("S2", "-0.5000"), ("S2", "1.0001"), ("S3", "2.0000"), ("S3", "0.5e00"),
    ("SEQ", "7"), ("SEQ", "e:07"), ("SEQ", "e:"), ("SEQ", ":7"), ("SEQ", "a:b:7"), ("SEQ", "e:-7"),
    ("CLK", "SYNCED"), ("K1", "a b"), ("SIG1", "A" * 44), ("SIG1", "A" * 42 + "=="),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_malformed_field_is_named(frozen, name, value):
    """Type, form and length of every known field are checked; null is no absence."""
    with pytest.raises(MessageError, match=rf"^{name}\b.*: expected .* got ") as caught:
        message.parse(altered(frozen, **{name: value}))
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("name", ["K1", "SIG1"])
def test_a_key_without_a_signature_is_refused(frozen, name):
    """Half a signature is neither a signed message nor an unsigned one."""
    with pytest.raises(MessageError, match=r"^K1, SIG1: expected both or neither"):
        message.parse(altered(frozen, **{name: ...}))


def test_a_malformed_token_is_a_token_error(frozen):
    """The F2 fields are decoded while reading."""
    with pytest.raises(TokenError, match=r"^F2_META"):
        message.parse(altered(frozen, F2_META="64|8|1e-3|0"))


def test_unknown_fields_are_kept_and_signed(punch, seen, signer):
    """A field of a later version is carried along, under the signature."""
    draft = altered(message.draft(punch), X_NOTE={"é": [1, 2.5, None, True]})
    body = message.freeze(draft, seen=seen, seq="e:1", device_id="d", signer=signer)
    read = message.parse(body)
    assert read.fields["X_NOTE"] == {"é": [1, 2.5, None, True]}
    assert signer.message_is_authentic(read.fields)
    assert not signer.message_is_authentic(read.fields | {"X_NOTE": 1})


@pytest.mark.parametrize(
    "extra",
    [
        b'"A1":"x"',
        b'"X":1,"X":1',
        b'"X":NaN',
        b'"X":1e999',
        b'"X":' + b"9" * 400,
        b'"X":"\\ud800"',
    ],
)
def test_what_two_readers_could_read_differently_is_refused(frozen, extra):
    """Duplicate keys, numbers beyond a double and lone surrogates are refused in any field."""
    with pytest.raises(MessageError, match="expected"):
        message.parse(frozen[:-1] + b"," + extra + b"}")


def test_an_id_of_another_uuid_version_is_read(frozen):
    """Other clients make their ids as they like; only ours promise version 7."""
    other = "0f8fad5b-d9cb-469f-a165-70867728950e"
    assert message.parse(altered(frozen, A1=other)).event_id == other


def test_an_estimated_time_has_bounds_around_it(freeze_punch):
    """CLK estimated needs TS1_MIN and TS1_MAX, in order and around TS1."""
    bounds = {"TS1_MIN": "2026-09-21T14:13:00.000Z", "TS1_MAX": "2026-09-21T14:14:00.000Z"}
    body = altered(freeze_punch(signed=False), CLK="estimated")
    read = message.parse(altered(body, **bounds))
    moment = datetime(2026, 9, 21, 14, 13, tzinfo=UTC).timestamp() * 1000
    assert read.seen_bounds_ms == (moment, moment + 60_000)
    for wrong in (
        {},
        {"TS1_MIN": bounds["TS1_MIN"]},
        {"TS1_MAX": bounds["TS1_MAX"]},
        {"TS1_MIN": bounds["TS1_MAX"], "TS1_MAX": bounds["TS1_MIN"]},
        bounds | {"TS1_MAX": "2026-09-21T14:13:01.000Z"},
        bounds | {"TS1_MAX": "2026-02-30T14:13:01.000Z"},
    ):
        with pytest.raises(MessageError, match=r"^TS1.*expected"):
            message.parse(altered(body, **wrong))


def test_the_decoded_vector_cannot_be_changed(frozen):
    """A message that was read is a value."""
    with pytest.raises(ValueError, match="read-only"):
        message.parse(frozen).vector[0] = 1.0


@settings(deadline=None, max_examples=100)
@given(at=st.integers(0, 10_000), replacement=st.binary(max_size=2))
def test_a_damaged_body_is_refused_or_fails_its_signature(frozen, signer, at, replacement):
    """No flipped or lost byte passes: a named error, or a signature that is wrong."""
    at %= len(frozen)
    body = frozen[:at] + replacement + frozen[at + 1 :]
    try:
        read = message.parse(body)
    except (MessageError, TokenError):
        return
    assert signer.message_is_authentic(read.fields) is (read.fields == json.loads(frozen))
