"""The signed posts: routes that ask for no token, because their messages prove themselves."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from kiosk.errors import MessageError, WireError
from kiosk.server.auth import Guard
from kiosk.server.documents import (
    AttendanceMessage,
    AttendanceReceipt,
    Heartbeat,
    HeartbeatMessage,
    array_of,
    body_of,
    problems,
)
from kiosk.server.hearts import Hearts
from kiosk.server.intake import MAX_JSON_BYTES, read_body
from kiosk.server.reception import Heard, Reception, UnauthenticError, Verdict
from kiosk.wire.batch import MAX_MESSAGES, split

_UNREADABLE = 400
_TOO_MANY = 413


def router(reception: Reception, hearts: Hearts, guard: Guard) -> APIRouter:
    """POST /toon/attendance, one message, /toon/attendance/batch, several, /toon/heartbeat."""
    routes = APIRouter(tags=["wire"])

    @routes.post(
        "/toon/attendance",
        response_model=AttendanceReceipt,
        responses=problems(400, 401, 403, 408, 413, 503),
        openapi_extra=body_of(AttendanceMessage),
    )
    async def attend(
        request: Request, idempotency_key: Annotated[str | None, Header()] = None
    ) -> JSONResponse:
        """Record one attendance message; the receipt is sent once the record is on the disk.

        A device with a registered key must sign. Any other message needs the bearer token, or a
        server without one. Status 400 of a message whose sender is proven carries the receipt
        `rejected` beside the error.
        """
        body = await read_body(request, MAX_JSON_BYTES)
        verdict = await run_in_threadpool(
            _one, reception, body, idempotency_key, unsigned_allowed=guard.bearer_fits(request)
        )
        return JSONResponse(_document(verdict), _UNREADABLE if verdict.problem else 200)

    @routes.post(
        "/toon/attendance/batch",
        response_model=list[AttendanceReceipt],
        responses=problems(400, 401, 403, 408, 413, 503),
        openapi_extra=array_of(AttendanceMessage, MAX_MESSAGES),
    )
    async def attend_all(request: Request) -> JSONResponse:
        """Record up to 100 messages, each signed by itself; receipts in the same order.

        All of them are committed together before the reply, and none of them unless the sender
        of each is proven.
        """
        body = await read_body(request, MAX_JSON_BYTES)
        verdicts = await run_in_threadpool(
            _several, reception, body, unsigned_allowed=guard.bearer_fits(request)
        )
        return JSONResponse([_document(verdict) for verdict in verdicts])

    @routes.post(
        "/toon/heartbeat",
        response_model=Heartbeat,
        responses=problems(400, 401, 403, 408, 413, 503),
        openapi_extra=body_of(HeartbeatMessage),
    )
    async def heartbeat(request: Request) -> JSONResponse:
        """Take in how a kiosk stands. It is signed, or comes with the token, like a message."""
        body = await read_body(request, MAX_JSON_BYTES)
        await run_in_threadpool(hearts.hear, body, unsigned_allowed=guard.bearer_fits(request))
        return JSONResponse({"S1": "ok"})

    return routes


def _one(
    reception: Reception, body: bytes, idempotency_key: str | None, *, unsigned_allowed: bool
) -> Verdict:
    heard = reception.hear(body, unsigned_allowed=unsigned_allowed, idempotency_key=idempotency_key)
    return reception.answer([heard])[0]


def _several(reception: Reception, body: bytes, *, unsigned_allowed: bool) -> list[Verdict]:
    bodies = split(body, MessageError)
    if len(bodies) > MAX_MESSAGES:
        raise HTTPException(
            _TOO_MANY, f"body: expected at most {MAX_MESSAGES} messages, got {len(bodies)}"
        )
    heard: list[Heard] = []
    for number, one in enumerate(bodies, start=1):
        try:
            heard.append(reception.hear(one, unsigned_allowed=unsigned_allowed))
        except (WireError, UnauthenticError) as error:
            raise type(error)(f"message {number}: {error.message}", hint=error.hint) from error
    return reception.answer(heard)


def _document(verdict: Verdict) -> dict[str, str | float]:
    return verdict.receipt | ({"error": verdict.problem} if verdict.problem else {})
