"""JSON both ways: what two readers could understand differently is refused."""

import math

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from kiosk.errors import MessageError, ReceiptError
from kiosk.wire import jsontext
from kiosk.wire.jsontext import canonical, quoted, read_object

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("aé😀ﬀ"), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=100)
@given(fields=st.dictionaries(st.text("ABé😀ﬀ", max_size=4), VALUES, max_size=4))
def test_the_canonical_form_reads_back_and_is_stable(fields):
    """Reading the JCS form gives equal fields, and writing them again the same bytes."""
    body = canonical(fields)
    again = read_object(body, MessageError)
    assert again == fields
    assert canonical(again) == body


PLAIN = st.integers(-(2**53) - 2, 2**53 + 2) | st.text(st.characters())


@settings(deadline=None, max_examples=300)
@given(fields=st.dictionaries(st.text(st.characters(max_codepoint=127)), PLAIN))
def test_the_short_way_writes_what_the_long_one_does(fields):
    """Flat fields are written by the standard library: byte for byte as by RFC 8785's code."""
    try:
        expected = rfc8785.dumps(fields)
    except ValueError:
        with pytest.raises(MessageError):
            canonical(fields)
        return
    assert canonical(fields) == expected


def test_keys_are_sorted_by_utf_16():
    """RFC 8785, 3.2.3: an emoji (a surrogate pair) sorts before U+FB33, unlike by code point."""
    assert canonical({"\ufb33": 1, "😀": 2, "é": 3}) == '{"é":3,"😀":2,"\ufb33":1}'.encode()


@pytest.mark.parametrize(
    ("body", "came"),
    [
        (b"", "Expecting value"),
        (b"   ", "Expecting value"),
        (b"<html></html>", "Expecting value"),
        (b"[]", "list of 0"),
        (b'"text"', "'text'"),
        (b"null", "None"),
        (b"{} {}", "Extra data"),
        (b'{"A":1,}', "Expecting property name"),
        (b"{'A':1}", "Expecting property name"),
        (b'{"A":1,"A":1}', "the key 'A' twice"),
        (b'{"X":{"B":1,"B":2}}', "the key 'B' twice"),
        (b'{"A":1,"\\u0041":2}', "the key 'A' twice"),
        (b'{"A":NaN}', "NaN"),
        (b'{"A":-Infinity}', "-Infinity"),
        (b'{"A":1e999}', "range of a double"),
        (b'{"A":' + b"9" * 500_000 + b"}", "range of a double"),
        (b'{"A":"\xff"}', "utf-8"),
        (b'\xef\xbb\xbf{"A":1}', "BOM"),
        ('{"A":1}'.encode("utf-16"), "utf-8"),
        (b'{"A":' + b"[" * 500_000, "nested too deeply"),
        (b'{"A":' + b"[" * 16 + b"]" * 16 + b"}", "nested too deeply"),
        (b'{"A":[' + b"1," * 4096 + b"1]}", "4096 values"),
        (b'{"A":"a\nb"}', "control character"),
    ],
)
def test_what_is_no_plain_object_is_refused(body, came):
    """Whatever is not one I-JSON object gives the caller's error, which says what came."""
    with pytest.raises(ReceiptError, match="expected") as caught:
        read_object(body, ReceiptError)
    assert came in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_key_twice_is_found_in_one_pass():
    """2,000 keys, the last one twice: every name is looked at once, not once for each other."""

    class Name(str):
        __slots__ = ()
        looks = 0

        def __eq__(self, other):
            Name.looks += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    names = [Name(f"k{number:06d}") for number in range(2_000)]
    with pytest.raises(ValueError, match="the key 'k001999' twice"):
        jsontext._unique([(name, 0) for name in [*names, Name(names[-1])]])
    assert Name.looks < len(names)


@pytest.mark.parametrize(
    ("text", "value", "written"),
    [
        ("9007199254740991", 2**53 - 1, "9007199254740991"),
        ("9007199254740993", 2.0**53, "9007199254740992"),
        ("-9007199254740993", -(2.0**53), "-9007199254740992"),
        ("100000000000000000000", 1e20, "100000000000000000000"),
        ("1000000000000000000000", 1e21, "1e+21"),
        ("1.0", 1.0, "1"),
        ("-0", 0, "0"),
        ("1E-7", 1e-7, "1e-7"),
        ("0.000001", 1e-6, "0.000001"),
    ],
)
def test_numbers_are_doubles_as_in_javascript(text, value, written):
    """A number is read and written as ECMAScript does it, or no Node server could check SIG1."""
    fields = read_object(f'{{"A":{text}}}'.encode(), MessageError)
    assert fields == {"A": value}
    assert canonical(fields) == f'{{"A":{written}}}'.encode()


def nest(depth: int) -> object:
    """Return lists in lists."""
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "fields",
    [
        {"A": math.nan},
        {"A": math.inf},
        {"A": 2**53},
        {"A": "\ud800"},
        {"\ud800": 1},
        {"A": object()},
        {"A": b"bytes"},
        {"A": nest(5000)},
    ],
)
def test_fields_without_a_canonical_form_are_a_message_error(fields):
    """What RFC 8785 cannot write is an error of the one tree, not one of the library."""
    with pytest.raises(MessageError, match="expected"):
        canonical(fields)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "'a'"),
        ("é\n", "'\\xe9\\n'"),
        (True, "bool True"),
        (None, "NoneType None"),
        (1.5, "float 1.5"),
        ([1, 2], "list of 2"),
        ({"a": nest(5000)}, "dict of 1"),
    ],
)
def test_a_value_is_quoted_short_and_printable(value, text):
    """An error shows type and value in printable ASCII, and never a long one in full."""
    assert quoted(value) == text


def test_a_long_value_is_cut():
    """60 characters and the length are enough to know what came."""
    assert quoted("x" * 10_000) == "'" + "x" * 59 + "... (10002 characters)"
