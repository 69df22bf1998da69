"""The routes. FastAPI writes the OpenAPI document; nothing is loaded from anywhere else."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from kiosk import __version__
from kiosk.errors import EmbeddingError, KioskError, PictureError, WireError
from kiosk.server.matching import Matcher
from kiosk.server.pictures import PictureEnrolment
from kiosk.server.reception import Reception, UnauthenticError
from kiosk.server.store import Store
from kiosk.types import Embedding
from kiosk.wire import f2

MAX_MESSAGE = 1_000_000
MAX_PICTURE = 10_000_000
_EMPLOYEE = re.compile(r"[^\x00-\x1f\x7f/]{1,64}")


@dataclass(frozen=True, slots=True)
class Rules:
    """How the server was started. `token` None: loopback only, nothing asks for one."""

    token: str | None = None
    threshold: float | None = None
    keep_embeddings: bool = False


class AttendanceReceipt(BaseModel):
    """The reply to one attendance message."""

    A1: str
    S1: str
    RTO: float | None = None
    SIG2: str | None = None


class Problem(BaseModel):
    """Every error."""

    error: str


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 409, 413, 415, 422)
}


def create_app(store: Store, rules: Rules) -> FastAPI:
    """The application on an open store."""
    app = FastAPI(
        title="Attendance server",
        version=__version__,
        # The documentation pages would load scripts from elsewhere; /openapi.json is the document.
        docs_url=None,
        redoc_url=None,
        responses=_PROBLEMS,
    )
    matcher = Matcher(store, rules.threshold)
    reception = Reception(store, matcher, rules.keep_embeddings)
    pictures = PictureEnrolment()
    _add_errors(app)
    _add_messages(app, reception, rules)
    _add_records(app, store, rules)
    _add_people(app, store, pictures, rules)
    _add_devices(app, store, rules)
    return app


def _bearer(rules: Rules) -> Any:
    def check(authorization: Annotated[str, Header()] = "") -> None:
        if not _token_fits(rules, authorization):
            raise HTTPException(401, "a right bearer token expected in Authorization")

    return Depends(check)


def _token_fits(rules: Rules, authorization: str) -> bool:
    if rules.token is None:
        return True
    return hmac.compare_digest(authorization.encode(), f"Bearer {rules.token}".encode())


async def _body(request: Request, limit: int) -> bytes:
    """The request's body, refused as soon as it grows over the limit."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise HTTPException(413, f"a body of at most {limit} bytes expected")
    return bytes(body)


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"a JSON object expected, {error}") from error
    if not isinstance(document, dict):
        raise HTTPException(400, f"a JSON object expected, got {type(document).__name__}")
    return document


def _add_errors(app: FastAPI) -> None:
    statuses = {UnauthenticError: 401, WireError: 400, EmbeddingError: 400, PictureError: 422}

    @app.exception_handler(KioskError)
    def kiosk_error(_: Request, error: KioskError) -> JSONResponse:
        status = next((s for kind, s in statuses.items() if isinstance(error, kind)), 409)
        return JSONResponse({"error": str(error)}, status)

    @app.exception_handler(HTTPException)
    def http_error(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code)


def _add_messages(app: FastAPI, reception: Reception, rules: Rules) -> None:
    @app.post("/toon/attendance", response_model=AttendanceReceipt, tags=["wire"])
    async def attendance(
        request: Request,
        idempotency_key: Annotated[str | None, Header()] = None,
        authorization: Annotated[str, Header()] = "",
    ) -> Response:
        """Record one attendance message: JSON as docs/wire.md describes, at most 1 MB."""
        body = await _body(request, MAX_MESSAGE)
        if idempotency_key is not None and _object(body).get("A1") != idempotency_key:
            raise HTTPException(400, "Idempotency-Key: the same value as A1 expected")
        allowed = _token_fits(rules, authorization)
        receipt = await run_in_threadpool(reception.receive, body, unsigned_allowed=allowed)
        return JSONResponse(receipt)


def _add_records(app: FastAPI, store: Store, rules: Rules) -> None:
    pages = Environment(loader=PackageLoader("kiosk.server", "pages"), autoescape=True)

    @app.get("/", include_in_schema=False)
    def start() -> Response:
        return RedirectResponse("/attendance")

    @app.get("/healthz", tags=["operation"])
    def health() -> dict[str, str]:
        """Whether the store answers."""
        store.alarms()
        return {"status": "ok", "version": __version__}

    @app.get("/attendance", dependencies=[_bearer(rules)], tags=["records"])
    def attendance(
        accept: Annotated[str, Header()] = "",
        day: Annotated[str | None, Query(pattern=r"^\d{4}-\d{2}-\d{2}$")] = None,
        employee: str | None = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 500,
    ) -> Response:
        """Records as JSON, or as a page for a browser (by Accept), the newest first."""
        records = store.attendance(day=day, employee=employee, limit=limit)
        alarms = store.alarms()
        if "text/html" not in accept:
            return JSONResponse({"attendance": records, "alarms": alarms})
        page = pages.get_template("attendance.html").render(records=records, alarms=alarms, day=day)
        policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})


def _add_people(app: FastAPI, store: Store, pictures: PictureEnrolment, rules: Rules) -> None:
    guard = [_bearer(rules)]

    @app.put("/employees/{employee}/faces", dependencies=guard, tags=["people"])
    async def enrol(employee: str, request: Request) -> dict[str, Any]:
        """Enrol from F2 tokens (JSON: F2_MODEL, faces) or from one picture (image/*)."""
        if not _EMPLOYEE.fullmatch(employee):
            raise HTTPException(400, "an employee id of 1 to 64 printable characters expected")
        kind = request.headers.get("content-type", "").split(";")[0].strip()
        if kind.startswith("image/"):
            picture = await _body(request, MAX_PICTURE)
            embedding = await run_in_threadpool(pictures.embedding_of, picture)
            embeddings = [embedding]
        elif kind == "application/json":
            embeddings = _embeddings(_object(await _body(request, MAX_MESSAGE)))
        else:
            raise HTTPException(415, f"application/json or image/* expected, got {kind!r}")
        space = embeddings[0].space
        vectors = [embedding.vector for embedding in embeddings]
        count = await run_in_threadpool(store.add_faces, employee, space, vectors)
        return {"employee": employee, "F2_MODEL": space, "faces": count}

    @app.get("/employees", dependencies=guard, tags=["people"])
    def employees() -> dict[str, Any]:
        """Who is enrolled."""
        return {"employees": store.employees()}

    @app.delete("/employees/{employee}", dependencies=guard, tags=["people"])
    def remove(employee: str) -> dict[str, Any]:
        """Forget an employee's faces; records of attendance stay."""
        count = store.remove_employee(employee)
        if not count:
            raise HTTPException(404, f"an enrolled employee expected, nobody is {employee!r}")
        return {"employee": employee, "removed": count}


def _add_devices(app: FastAPI, store: Store, rules: Rules) -> None:
    guard = [_bearer(rules)]

    @app.put("/devices/{device}/keys/{key_id}", dependencies=guard, tags=["devices"])
    async def register(device: str, key_id: str, request: Request) -> dict[str, str]:
        """Register a device's sign key: JSON with `key`, base64 of 32 bytes."""
        text = _object(await _body(request, MAX_MESSAGE)).get("key")
        try:
            key = base64.b64decode(str(text), validate=True)
        except binascii.Error as error:
            raise HTTPException(400, f"key: base64 of 32 bytes expected, {error}") from error
        if len(key) != 32:
            raise HTTPException(400, f"key: base64 of 32 bytes expected, got {len(key)} bytes")
        await run_in_threadpool(store.register_key, device, key_id, key)
        return {"D1": device, "K1": key_id}


def _embeddings(document: dict[str, Any]) -> list[Embedding]:
    space, faces = document.get("F2_MODEL"), document.get("faces")
    if not isinstance(space, str) or not space:
        raise HTTPException(400, f"F2_MODEL: the id of an embedding space expected, got {space!r}")
    if not isinstance(faces, list) or not faces or not all(isinstance(f, dict) for f in faces):
        raise HTTPException(400, "faces: a list of F2 tokens expected")
    return [Embedding.of(f2.decode(face), space) for face in faces]


def read_token(path: Path) -> str:
    """The bearer token of a file that only its owner can read; KioskError otherwise."""
    try:
        mode = path.stat().st_mode & 0o777
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise KioskError(f"--token-file {path}: a readable file expected, {error}") from error
    if mode & 0o077:
        raise KioskError(f"--token-file {path}: mode 0600 expected, got {mode:04o}")
    if len(token) < 16:
        raise KioskError(f"--token-file {path}: at least 16 characters expected, got {len(token)}")
    return token
