"""F2 tokens: the error bound on the whole domain, the dialects, and all that is refused."""

import base64
import math
import re
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kiosk.errors import EmbeddingError, TokenError
from kiosk.types import Embedding
from kiosk.wire import f2

BOUND = 0.5000001
SEEDS = st.integers(0, 2**32 - 1)
DIMS = st.sampled_from([64, 65, 66, 127, 128, 192, 511, 512, 1023, 1024])


def unit(seed: int, dim: int) -> np.ndarray:
    """Return a random unit vector, float64."""
    vector = np.random.default_rng(seed).standard_normal(dim)
    return vector / np.linalg.norm(vector)


def narrow(seed: int, dim: int, spread: float, dtype: type) -> np.ndarray:
    """Return a unit vector whose values differ by about `spread`: its zero point is far away."""
    noise = np.random.default_rng(seed).uniform(0.0, spread, dim)
    noise[0], noise[1] = 0.0, spread
    sign = -1.0 if seed % 2 else 1.0
    vector = sign * (1 / math.sqrt(dim) + noise - noise.mean())
    return (vector / np.linalg.norm(vector)).astype(dtype)


def scale_of(token: f2.Token) -> float:
    """Return the step of a token."""
    return float(token.meta.split("|")[2])


def worst_error(vector: np.ndarray, token: f2.Token) -> float:
    """Return the largest error of any value, in steps."""
    decoded = f2.decode(token.fields())
    return float(np.abs(decoded - vector.astype(np.float64)).max()) / scale_of(token)


@settings(deadline=None, max_examples=100)
@given(seed=SEEDS, dim=DIMS, dtype=st.sampled_from([np.float32, np.float64]))
def test_a_random_unit_vector_comes_back_within_half_a_step(seed, dim, dtype):
    """Encoding loses at most half a step (plus float noise) of any value."""
    vector = unit(seed, dim).astype(dtype)
    assert worst_error(vector, f2.encode(vector)) <= BOUND


@settings(deadline=None, max_examples=150)
@given(
    seed=SEEDS,
    dim=DIMS,
    exponent=st.floats(-5.999, -2.0),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_a_narrow_range_far_from_zero_keeps_the_bound(seed, dim, exponent, dtype):
    """The bound holds where the zero point lies far outside 0..255 and a step is a few ulps."""
    vector = narrow(seed, dim, 10.0**exponent, dtype)
    assume(float(np.ptp(vector.astype(np.float64))) >= f2.MIN_RANGE)
    token = f2.encode(vector)
    assert worst_error(vector, token) <= BOUND
    if exponent < -4:
        assert not 0 <= int(token.meta.split("|")[3]) <= 255


def half_way(dim: int, lowest: int) -> np.ndarray:
    """Return a unit vector whose extremes lie half-way between two bytes, to the last bit."""
    step = 1 / 512
    low, high = (lowest + 0.5) * step, (lowest + 255.5) * step
    filling = math.sqrt((1 - low**2 - high**2) / (dim - 2))
    return np.array([low, high, *[filling if high > -low else -filling] * (dim - 2)])


@settings(deadline=None, max_examples=100)
@given(dim=DIMS, lowest=st.integers(-255, 0), nudges=st.integers(-3, 3))
def test_values_between_two_bytes_lose_nothing_to_the_clamp(dim, lowest, nudges):
    """With the extremes half-way between bytes, rounding may span 256 steps; the bound holds."""
    vector = half_way(dim, lowest)
    for _ in range(abs(nudges)):
        vector[1] = np.nextafter(vector[1], math.copysign(2.0, nudges))
    assert worst_error(vector, f2.encode(vector)) <= BOUND


def test_the_clamp_is_needed_and_harmless():
    """The largest value may round to 256, which would wrap to byte 0 without the clamp."""
    vector = half_way(64, 0)
    token = f2.encode(vector)
    assert token.meta.endswith("|0")
    assert np.rint(vector[1] / scale_of(token)) == 256
    assert base64.b64decode(token.data)[1] == 255
    assert worst_error(vector, token) <= BOUND


def test_the_naive_formula_has_the_bias_that_the_integer_zero_point_removes():
    """Rounding against the real minimum but decoding with an integer zero point errs more."""
    vector = unit(3, 512)
    scale = (vector.max() - vector.min()) / 255
    zero_point = round(-vector.min() / scale)
    naive = (np.rint((vector - vector.min()) / scale) - zero_point) * scale
    assert np.abs(naive - vector).max() / scale > 0.6
    assert worst_error(vector, f2.encode(vector)) <= BOUND


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, dim=DIMS, exponent=st.floats(-5.9, 0.0))
def test_the_written_form_is_the_protocols(seed, dim, exponent):
    """META is dim|8|scale|zeroPoint: 17 significant digits, no exponent, an integer zero point."""
    vector = unit(seed, dim) if exponent > -1 else narrow(seed, dim, 10.0**exponent, np.float64)
    fields = f2.encode(vector).fields()
    dim_text, bits, scale, zero_point = str(fields["F2_META"]).split("|")
    assert (dim_text, bits, fields["F2_DIM"]) == (str(dim), "8", dim)
    assert re.fullmatch(r"0\.[0-9]+", scale)
    assert len(Decimal(scale).as_tuple().digits) == 17
    assert re.fullmatch(r"0|-?[1-9][0-9]*", zero_point)
    assert len(base64.b64decode(str(fields["F2_DATA"]), validate=True)) == dim


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, dim=DIMS, exponent=st.floats(-5.9, -1.0))
def test_every_embedding_of_the_domain_can_be_encoded(seed, dim, exponent):
    """What the type Embedding admits with 64..1024 values never fails at the encoder."""
    vector = narrow(seed, dim, 10.0**exponent, np.float32)
    try:
        embedding = Embedding(vector, "space")
    except EmbeddingError:
        assume(False)
    assert f2.encode(embedding.vector).dim == dim


def test_random_unit_vectors_keep_their_direction():
    """Cosine to the original: 0.9999 in the mean and 0.9998 at the least, 512 values."""
    cosines = []
    for seed in range(300):
        vector = unit(seed, 512)
        decoded = f2.decode(f2.encode(vector).fields())
        cosines.append(float(decoded @ vector / np.linalg.norm(decoded)))
    assert np.mean(cosines) >= 0.9999
    assert min(cosines) >= 0.9998


def with_value(value: float) -> np.ndarray:
    """Return a vector with `value` among its values."""
    vector = unit(1, 128)
    vector[5] = value
    return vector


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        (np.zeros(0), "64..1024"),
        (unit(1, 63), "64..1024"),
        (unit(1, 1025), "64..1024"),
        (unit(1, 128).reshape(2, 64), "64..1024"),
        (np.full(64, 0.125), "differ by"),
        (narrow(2, 64, 9.9e-7, np.float64), "differ by"),
        (np.zeros(128), "length 1"),
        (unit(1, 128) * 1.01, "length 1"),
        (unit(1, 128) * 1e-30, "length 1"),
        (unit(1, 128).astype(np.float32) * np.float32(1e30), "length 1"),
        (with_value(math.nan), "finite"),
        (with_value(math.inf), "finite"),
        (unit(1, 128).astype(np.float16), "float32"),
        (np.eye(1, 128, dtype=np.int64)[0], "float32"),
    ],
)
def test_a_vector_outside_the_domain_is_never_a_token(vector, reason):
    """Constant, empty, non-finite, zero-norm and misshapen vectors are a named error."""
    with pytest.raises(EmbeddingError, match=re.escape(reason)):
        f2.encode(vector)


def test_a_token_never_shows_its_data():
    """A token is treated like a photograph: its repr leaves the data out."""
    token = f2.encode(unit(1, 128))
    assert token.data not in repr(token)


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, dim=DIMS, upper=st.booleans())
def test_the_hexadecimal_dialect_decodes_to_the_same(seed, dim, upper):
    """Hexadecimal F2_DATA of 2*dim digits is read like the base64 of the same bytes."""
    fields = f2.encode(unit(seed, dim)).fields()
    text = base64.b64decode(str(fields["F2_DATA"])).hex()
    dialect = fields | {"F2_DATA": text.upper() if upper else text}
    np.testing.assert_array_equal(f2.decode(dialect), f2.decode(fields))


def test_a_fractional_zero_point_is_the_value_of_byte_zero():
    """In the second dialect value = byte * scale + zeroPoint."""
    data = bytes(range(64))
    fields = {
        "F2_DATA": base64.b64encode(data).decode(),
        "F2_META": "64|8|0.004|-0.125",
        "F2_DIM": 64,
    }
    np.testing.assert_array_equal(f2.decode(fields), np.arange(64) * 0.004 - 0.125)


def valid(**changes: object) -> dict[str, object]:
    """Return a valid token's fields, changed."""
    data = base64.b64encode(bytes(range(64))).decode()
    fields: dict[str, object] = {"F2_DATA": data, "F2_META": "64|8|0.004|31", "F2_DIM": 64}
    return fields | changes


def metas(*texts: str) -> list[tuple[str, dict[str, object]]]:
    """Return tokens with these F2_META, each to be refused for it."""
    return [("F2_META", valid(F2_META=text)) for text in texts]


DATA = str(valid()["F2_DATA"])
ASCENDING = bytes(range(64))
REFUSED: list[tuple[str, dict[str, object]]] = [
    *[
        ("F2_DIM", valid(F2_DIM=dim))
        for dim in (True, 64.0, "64", None, 0, -64, 63, 1025, 2**70, [64], math.nan)
    ],
    ("F2_META", valid(F2_DIM=65)),
    ("F2_META", valid(F2_META=64)),
    ("F2_META", valid(F2_META=None)),
    *metas(
        "", "64", "64|8|0.004", "64|8|0.004|31|", "64|8|0.004|31|0", "|64|8|0.004|31",
        "65|8|0.004|31", "064|8|0.004|31", " 64|8|0.004|31", "64 |8|0.004|31", "64.0|8|0.004|31",
        "٦٤|8|0.004|31", "64|16|0.004|31", "64|08|0.004|31", "64||0.004|31", "64|8.0|0.004|31",
        "64|8|0|31", "64|8|0.000|31", "64|8|-0.004|31", "64|8|+0.004|31", "64|8|4e-3|31",
        "64|8|inf|31", "64|8|nan|31", "64|8||31", "64|8|.004|31", "64|8|4.|31", "64|8|00.004|31",
        "64|8|0,004|31", "64|8|0.00_4|31", "64|8|0.004 |31", "64|8|0x1|31",
        "64|8|0.0" + "0" * 40 + "1|31", "64|8|9999999999|31",
        "64|8|0.004|", "64|8|0.004|+31", "64|8|0.004|031", "64|8|0.004|31.0", "64|8|0.004|-0.0",
        "64|8|0.004|31.", "64|8|0.004|.5", "64|8|0.004|1e-3", "64|8|0.004|nan", "64|8|0.004|-",
        "64|8|0.004|31\n", "64|8|0.004|1234567890123", "64|8|0.004|" + "1" * 500,
    ),
    *[
        ("F2_DATA", valid(F2_DATA=data))
        for data in (
            None, 7, "", DATA[:-1], DATA + "=", DATA + "\n", " " + DATA[1:], DATA[:-2],
            DATA[:-4], DATA + DATA, "*" + DATA[1:], "é" + DATA[1:], DATA.replace("=", "A"),
            "=" + DATA[1:], DATA[:-3] + "9==", DATA[:40] + "====" + DATA[44:],
            ASCENDING.hex()[:-1], ASCENDING.hex() + "0", "g" + ASCENDING.hex()[1:],
            "0x" + ASCENDING.hex()[2:], ASCENDING.hex(" ")[:128], "٣" * 128,
            base64.urlsafe_b64encode(b"\xff" * 63 + b"\x01").decode(),
            base64.b64encode(bytes(63)).decode(), base64.b64encode(bytes(65)).decode(),
            base64.b64encode(b"\x80" * 64).decode(), "A" * 1_000_000,
        )
    ],
]  # fmt: skip


@pytest.mark.parametrize(("name", "fields"), REFUSED)
def test_a_malformed_token_is_refused_by_the_name_of_its_field(name, fields):
    """Everything but the standard form and the two dialects is refused, the field named."""
    f2.decode(valid())
    with pytest.raises(TokenError, match=rf"^{name}.*expected .*got ") as caught:
        f2.decode(fields)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["F2_DATA", "F2_META", "F2_DIM"])
def test_a_missing_field_is_named(name):
    """A token without one of its fields is refused, the field named."""
    fields = valid()
    del fields[name]
    with pytest.raises(TokenError, match=rf"^{name}: expected .* got no such field"):
        f2.decode(fields)


def test_an_error_never_shows_the_data():
    """F2_DATA is biometric: an error tells its length only."""
    with pytest.raises(TokenError) as caught:
        f2.decode(valid(F2_DATA=DATA[:-1]))
    assert DATA[:16] not in str(caught.value)


def independent_reading(fields: dict[str, object]) -> np.ndarray:
    """Read a token as its text says, by other means than the product's."""
    _, _, scale, zero_point = str(fields["F2_META"]).split("|")
    text = str(fields["F2_DATA"])
    dim = int(str(fields["F2_DIM"]))
    data = bytes.fromhex(text) if len(text) == 2 * dim else base64.b64decode(text)
    assert len(data) == dim
    step, zero = Decimal(scale), Decimal(zero_point)
    if "." in zero_point:
        return np.array([float(byte * step + zero) for byte in data])
    return np.array([float((byte - zero) * step) for byte in data])


CHARACTERS = st.sampled_from([*"0123456789abcdefABCDEFgzZ+/=|.-eE _\n\x00", "é", "٣"])


@settings(deadline=None, max_examples=300)
@given(
    seed=st.integers(0, 20),
    name=st.sampled_from(["F2_DATA", "F2_META"]),
    hexadecimal=st.booleans(),
    data=st.data(),
)
def test_a_mutated_token_is_refused_or_read_as_it_now_says(seed, name, hexadecimal, data):
    """A changed character never yields a wrong decode in silence."""
    fields: dict[str, object] = dict(f2.encode(unit(seed, 64)).fields())
    if hexadecimal:
        fields["F2_DATA"] = base64.b64decode(str(fields["F2_DATA"])).hex()
    text = str(fields[name])
    at = data.draw(st.integers(0, len(text)))
    removed = data.draw(st.integers(0, 2))
    inserted = "".join(data.draw(st.lists(CHARACTERS, max_size=2)))
    fields[name] = text[:at] + inserted + text[at + removed :]
    try:
        decoded = f2.decode(fields)
    except TokenError:
        return
    np.testing.assert_allclose(decoded, independent_reading(fields), rtol=1e-12, atol=0)
