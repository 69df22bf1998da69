"""Request bodies, bounded in size and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from pydantic import BaseModel, ValidationError

MAX_JSON_BYTES = 1_000_000
MAX_PICTURE_BYTES = 10_000_000
_WHOLE_BODY_S = 30.0

Document = TypeVar("Document", bound=BaseModel)


async def read_body(request: Request, limit: int) -> bytes:
    """The body of a request; HTTP 413 as soon as it is known to be over `limit`, 408 after 30 s."""
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(_WHOLE_BODY_S):
            async for part in request.stream():
                body += part
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError as error:
        raise HTTPException(
            408, f"body: expected whole within {_WHOLE_BODY_S:.0f} s, got {len(body)} bytes"
        ) from error
    return bytes(body)


def read_document(body: bytes, model: type[Document]) -> Document:
    """A JSON body as its model; HTTP 400 names every field at fault, and never shows its value."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        raise HTTPException(400, "; ".join(map(problem_text, problems))) from error


def problem_text(problem: Mapping[str, Any]) -> str:
    """One mistake that pydantic found, with the name of the field."""
    place = ".".join(str(part) for part in problem["loc"]) or "body"
    return f"{place}: {problem['msg']}"


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"body: expected at most {limit} bytes, got more")
