"""The signed posts: the one route that asks for no token, because its messages prove themselves."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from kiosk.server.auth import Guard
from kiosk.server.documents import AttendanceMessage, AttendanceReceipt, body_of, problems
from kiosk.server.intake import MAX_JSON_BYTES, read_body
from kiosk.server.reception import Reception


def router(reception: Reception, guard: Guard) -> APIRouter:
    """POST /toon/attendance."""
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
        server without one.
        """
        body = await read_body(request, MAX_JSON_BYTES)
        receipt = await run_in_threadpool(
            reception.receive,
            body,
            idempotency_key,
            guard.bearer_fits(request),
        )
        return JSONResponse(receipt)

    return routes
