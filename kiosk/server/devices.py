"""The sign keys of the kiosks."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from kiosk.server.auth import Guard
from kiosk.server.documents import (
    DeviceId,
    InvitedKey,
    KeyId,
    Registered,
    SignKey,
    body_of,
    problems,
)
from kiosk.server.hearts import Hearts
from kiosk.server.intake import MAX_JSON_BYTES, read_body, read_document
from kiosk.server.inviting import digest_of
from kiosk.server.store import Store


def router(store: Store, hearts: Hearts, guard: Guard) -> APIRouter:
    """GET /devices, PUT and POST /devices/{D1}/keys/{K1}."""
    routes = APIRouter(prefix="/devices", tags=["devices"])

    @routes.get(
        "",
        dependencies=guard.readers(),
        response_model=list[dict[str, Any]],
        responses=problems(401),
    )
    def heard() -> JSONResponse:
        """The last heartbeat of each kiosk that was heard since the server's start.

        `heard_ms` is when, by the server's clock; the one heard longest ago comes first.
        """
        return JSONResponse(hearts.all())

    @routes.put(
        "/{device}/keys/{key_id}",
        dependencies=guard.machines(),
        response_model=Registered,
        responses=problems(400, 401, 403, 408, 409, 413, 422, 503),
        openapi_extra=body_of(SignKey),
    )
    async def register(
        device: Annotated[DeviceId, Path()], key_id: Annotated[KeyId, Path()], request: Request
    ) -> dict[str, str]:
        """Register a device's sign key; from then on the device must sign.

        An id stands for one key for ever: a new key comes under a new id, and the old one goes on
        to prove the messages that were signed with it.
        """
        asked = read_document(await read_body(request, MAX_JSON_BYTES), SignKey)
        await run_in_threadpool(store.register_key, device, key_id, _key_in(asked))
        return {"D1": device, "K1": key_id}

    @routes.post(
        "/{device}/keys/{key_id}",
        response_model=Registered,
        responses=problems(400, 403, 408, 409, 413, 422, 503),
        openapi_extra=body_of(InvitedKey),
    )
    async def register_invited(
        device: Annotated[DeviceId, Path()], key_id: Annotated[KeyId, Path()], request: Request
    ) -> dict[str, str]:
        """The same for a kiosk itself, which has no token but a code that works once."""
        asked = read_document(await read_body(request, MAX_JSON_BYTES), InvitedKey)
        await run_in_threadpool(
            store.register_invited, device, key_id, _key_in(asked), digest_of(asked.code)
        )
        return {"D1": device, "K1": key_id}

    return routes


def _key_in(asked: SignKey) -> bytes:
    key = base64.b64decode(asked.key)
    if base64.b64encode(key).decode("ascii") != asked.key:
        raise HTTPException(400, "key: expected base64 in standard form, got stray bits")
    return key
