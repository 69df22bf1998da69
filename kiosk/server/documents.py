"""The documents of the routes, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from kiosk.types import Direction, ReceiptStatus
from kiosk.wire.signing import KEY_ID

DEVICE_ID = r"[!-~]{1,64}"
SPACE_ID = r"[!-~]{1,128}"
MAX_FACES_AT_ONCE = 100


def _is_employee(text: str) -> str:
    """Take what stands in a URL, a table and a message alike."""
    if not text.isprintable() or text.strip() != text or "/" in text or "\ufffd" in text:
        raise ValueError("expected printable characters, no / and no space at either end")
    if text in {".", ".."}:
        raise ValueError("expected an id that is no path")
    return text


EmployeeId = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_is_employee)]
DeviceId = Annotated[str, Field(pattern=f"^{DEVICE_ID}$")]
KeyId = Annotated[str, Field(pattern=f"^{KEY_ID}$")]


class Problem(BaseModel):
    """Every error: what was expected, what came, what to do."""

    error: str


class F2Token(BaseModel):
    """One embedding, 8 bits a value; the values are checked by the wire's own decoder."""

    model_config = ConfigDict(strict=True)

    F2_DATA: str = Field(max_length=4096, description="base64 of F2_DIM bytes")
    F2_META: str = Field(max_length=128, description="dim|bits|scale|zeroPoint")
    F2_DIM: int = Field(ge=64, le=1024)


class HeartbeatMessage(BaseModel):
    """How a kiosk stands (docs/wire.md); unknown fields are signed too."""

    model_config = ConfigDict(extra="allow", strict=True)

    V1: str
    D1: DeviceId
    TS1: str
    CLK: str
    F2_MODEL: str
    VERSION: str
    SEQ: str = Field(description="high-water mark, epoch:number")
    QUEUE: int = Field(ge=0)
    QUEUE_AGE_S: int = Field(ge=0)
    QUARANTINE: list[str] = Field(description="sequences that were set aside")
    STATE: str
    K1: str | None = None
    SIG1: str | None = None


class Heartbeat(BaseModel):
    """The answer to a heartbeat."""

    S1: str = Field(pattern="^ok$")


class AttendanceMessage(F2Token):
    """An attendance message (docs/wire.md); unknown fields are kept and signed."""

    model_config = ConfigDict(extra="allow")

    A1: str = Field(description="event id, a UUID in lower case")
    D1: DeviceId
    S1: str = Field(pattern="^PRESENT$")
    TS1: str = Field(description="YYYY-MM-DDTHH:MM:SS.mmmZ")
    V1: str | None = Field(None, description='protocol version, "1"')
    A2: Direction | None = None
    E1: str | None = Field(None, max_length=200, description="employee id")
    F2_MODEL: str | None = Field(None, description="id of the embedding space")
    F3: str | None = Field(None, description="the kiosk's own match score, 4 decimals")
    S2: str | None = Field(None, description="liveness 0..1, 4 decimals")
    S3: str | None = Field(None, description="quality 0..1, 4 decimals")
    SEQ: str | None = Field(None, description="epoch:number")
    CLK: str | None = Field(None, description="synced, corrected or estimated")
    TS1_MIN: str | None = None
    TS1_MAX: str | None = None
    K1: KeyId | None = None
    SIG1: str | None = Field(None, description="base64 HMAC-SHA256 over the JCS form")


class AttendanceReceipt(BaseModel):
    """The reply to one message."""

    A1: str
    S1: ReceiptStatus
    RTO: float | None = Field(None, description="minimum delay in seconds")
    SIG2: str | None = Field(None, description="there when the message was signed")
    error: str | None = Field(None, description="why a malformed message was rejected")


class AttendanceRecord(BaseModel):
    """One recorded visit."""

    event_id: str
    device: str
    employee: str | None = Field(description="E1, else the server's own match; null: unidentified")
    claimed: str | None = Field(description="E1")
    matched: str | None = Field(description="the server's own match")
    similarity: float | None = Field(description="cosine to the nearest; null: nothing to compare")
    kind: Direction | None
    seen: str = Field(description="TS1, UTC")
    earliest: str | None = Field(description="TS1_MIN: bounds an estimated time")
    latest: str | None = Field(description="TS1_MAX")
    score: float | None = Field(description="the kiosk's own score, F3")
    quality: float | None
    liveness: float | None
    space: str | None
    clock: str | None
    seq: str | None
    signed: bool
    disagrees: bool = Field(description="E1 is not whom the server takes the face for")
    received: str = Field(description="when it was committed, UTC")
    conflicts: int = Field(description="other bodies that came under this event id")


class Alarm(BaseModel):
    """Something that somebody must look at."""

    at: str
    device: str
    event_id: str
    what: str


class Attendance(BaseModel):
    """One page of the records that fit, the newest first, and all alarms."""

    attendance: list[AttendanceRecord]
    total: int = Field(description="how many records fit")
    page: int = Field(description="which page this is, from 1")
    pages: int = Field(description="how many there are; 1 where nothing fits")
    alarms: list[Alarm]


class Enrolment(BaseModel):
    """Faces of one person in one embedding space."""

    model_config = ConfigDict(extra="forbid")

    F2_MODEL: str = Field(pattern=f"^{SPACE_ID}$")
    faces: list[F2Token] = Field(min_length=1, max_length=MAX_FACES_AT_ONCE)


class Enrolled(BaseModel):
    """How many faces the person has in the space now."""

    employee: str
    F2_MODEL: str
    faces: int


class Employee(BaseModel):
    """One person's faces in one space."""

    employee: str
    space: str
    faces: int


class Employees(BaseModel):
    """Who is enrolled."""

    employees: list[Employee]


class Removed(BaseModel):
    """How many faces were forgotten."""

    employee: str
    removed: int


class SignKey(BaseModel):
    """A device's sign key."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    key: str = Field(pattern="^[A-Za-z0-9+/]{43}=$", description="base64 of 32 bytes")


class InvitedKey(SignKey):
    """A sign key, and the code that lets it in."""

    code: str = Field(min_length=8, max_length=64, description="as `kiosk-server invite` printed")


class Registered(BaseModel):
    """Whose key is known under which id."""

    D1: str
    K1: str


class Health(BaseModel):
    """The server answers and reads its store."""

    status: str
    version: str


# Of these the routes read the body themselves, so that they can bound it.
REQUEST_BODIES = (AttendanceMessage, HeartbeatMessage, Enrolment, SignKey, InvitedKey)


def body_of(model: type[BaseModel], *other_types: str) -> dict[str, Any]:
    """A route's description of its body: JSON of a model, or bytes of the other media types."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    for media_type in other_types:
        content[media_type] = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": content}}


def array_of(model: type[BaseModel], most: int) -> dict[str, Any]:
    """A route's description of its body: a JSON array of a model."""
    items = {"$ref": f"#/components/schemas/{model.__name__}"}
    schema = {"type": "array", "items": items, "maxItems": most}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """A route's description of its errors."""
    return {status: {"model": Problem} for status in statuses}
