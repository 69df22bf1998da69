"""Who is enrolled."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Request
from starlette.concurrency import run_in_threadpool

from kiosk.server.auth import Guard
from kiosk.server.documents import (
    EmployeeId,
    Employees,
    Enrolled,
    Enrolment,
    Removed,
    body_of,
    problems,
)
from kiosk.server.intake import MAX_JSON_BYTES, MAX_PICTURE_BYTES, read_body, read_document
from kiosk.server.matching import Matcher
from kiosk.server.pictures import MEDIA_TYPES, PictureEnrolment
from kiosk.server.store import Store
from kiosk.types import Embedding
from kiosk.wire import f2
from kiosk.wire.jsontext import quoted

Id = Annotated[EmployeeId, Path()]


def router(store: Store, matcher: Matcher, pictures: PictureEnrolment, guard: Guard) -> APIRouter:
    """PUT /employees/{id}/faces, GET /employees, DELETE /employees/{id}."""
    routes = APIRouter(prefix="/employees", tags=["people"], responses=problems(401, 503))

    async def faces_in(request: Request) -> list[Embedding]:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type in MEDIA_TYPES:
            picture = await read_body(request, MAX_PICTURE_BYTES)
            return [await run_in_threadpool(pictures.embedding_of, picture, media_type)]
        if media_type != "application/json":
            allowed = ", ".join(("application/json", *MEDIA_TYPES))
            raise HTTPException(415, f"Content-Type: expected {allowed}, got {quoted(media_type)}")
        asked = read_document(await read_body(request, MAX_JSON_BYTES), Enrolment)
        return await run_in_threadpool(_embeddings, matcher, asked)

    @routes.put(
        "/{employee}/faces",
        dependencies=guard.machines(),
        response_model=Enrolled,
        responses=problems(400, 403, 408, 413, 415, 422),
        openapi_extra=body_of(Enrolment, *MEDIA_TYPES),
    )
    async def enrol(employee: Id, request: Request) -> dict[str, Any]:
        """Add faces to a person: F2 tokens of one space, or a picture that shows one face.

        Faces that the person has already are not added again.
        """
        embeddings = await faces_in(request)
        space = embeddings[0].space
        # Nobody is enrolled where nothing says how near is near enough.
        matcher.threshold(space)
        vectors = [embedding.vector for embedding in embeddings]
        count = await run_in_threadpool(store.add_faces, employee, space, vectors)
        return {"employee": employee, "F2_MODEL": space, "faces": count}

    @routes.get("", dependencies=guard.readers(), response_model=Employees)
    def employees() -> dict[str, Any]:
        """Who is enrolled, with how many faces in each space."""
        return {"employees": store.employees()}

    @routes.delete(
        "/{employee}",
        dependencies=guard.machines(),
        response_model=Removed,
        responses=problems(403, 404, 422),
    )
    def remove(employee: Id) -> dict[str, Any]:
        """Forget a person's faces; the records of attendance stay."""
        count = store.remove_employee(employee)
        if not count:
            raise HTTPException(404, f"expected somebody enrolled, got {quoted(employee)}")
        return {"employee": employee, "removed": count}

    return routes


def _embeddings(matcher: Matcher, asked: Enrolment) -> list[Embedding]:
    """The faces of an enrolment, all of the same dimension."""
    vectors = [f2.decode(face.model_dump()) for face in asked.faces]
    for vector in vectors:
        if vector.size != vectors[0].size:
            raise HTTPException(
                400, f"F2_DIM: expected {vectors[0].size} as in the first face, got {vector.size}"
            )
    return [matcher.embedding(vector, asked.F2_MODEL) for vector in vectors]
