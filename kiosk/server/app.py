"""The application: routes, errors, and the document that describes them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from kiosk import __version__
from kiosk.clock import Clock
from kiosk.errors import EmbeddingError, KioskError, ModelError, UserError, WireError
from kiosk.server import devices, messages, people, records
from kiosk.server.auth import Guard, SiteGuard
from kiosk.server.documents import REQUEST_BODIES, Health, problems
from kiosk.server.hearts import Hearts
from kiosk.server.intake import problem_text
from kiosk.server.matching import Matcher
from kiosk.server.pictures import PictureEnrolment
from kiosk.server.reception import Reception, UnauthenticError
from kiosk.server.store import KeyTakenError, NotInvitedError, Store, StoreError
from kiosk.vision.manifest import load_manifest

log = logging.getLogger(__name__)

_STATUSES: dict[type[KioskError], int] = {
    UnauthenticError: 401,
    WireError: 400,
    EmbeddingError: 400,
    UserError: 422,
    KeyTakenError: 409,
    NotInvitedError: 403,
    StoreError: 503,
    ModelError: 503,
}
_RETRY_AFTER_S = "5"
_SUMMARY = "Records attendance events of face kiosks. The wire is described in docs/wire.md."


@dataclass(frozen=True, slots=True)
class Rules:
    """How the server was started. `token` None: everybody may do everything, on loopback only.

    `threshold`: the least cosine of a match, in every space; None takes the model manifest's.
    """

    token: str | None = field(default=None, repr=False)
    threshold: float | None = None
    keep_embeddings: bool = False


def create_app(store: Store, rules: Rules, *, clock: Clock) -> FastAPI:
    """The application on an open store.

    UserError when somebody is enrolled in a space whose threshold is unknown.
    """
    guard = Guard(rules.token)
    matcher = Matcher(store, load_manifest().entries, rules.threshold)
    reception = Reception(store, matcher, rules.keep_embeddings)
    app = FastAPI(
        title="Attendance server",
        version=__version__,
        # The framework's own pages load scripts from elsewhere, and its document asks no token.
        openapi_url=None,
        # It would answer before any route, and lead to whatever name the Host gives.
        redirect_slashes=False,
    )
    app.add_middleware(SiteGuard, guard=guard)
    _answer_errors(app)
    hearts = Hearts(reception, clock)
    app.include_router(messages.router(reception, hearts, guard))
    app.include_router(records.router(store, guard))
    app.include_router(people.router(store, matcher, PictureEnrolment(clock), guard))
    app.include_router(devices.router(store, hearts, guard))
    _add_operation(app, store, guard)
    return app


def _answer_errors(app: FastAPI) -> None:
    """Make every error a JSON object with `error`."""

    @app.exception_handler(KioskError)
    async def kiosk_error(_: Request, error: KioskError) -> JSONResponse:
        status = next((s for kind, s in _STATUSES.items() if isinstance(error, kind)), 500)
        if status < 500:
            return _problem(str(error), status)
        log.error("server.failed", extra={"fields": {"reason": str(error)}})
        return _problem(str(error), status, {"Retry-After": _RETRY_AFTER_S})

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        text = str(error.detail)
        if text == HTTPStatus(error.status_code).phrase:
            # The framework's own words: no such path, or not by this method.
            text = f"expected a route of /openapi.json, got {request.method} {request.url.path}"
        return _problem(text, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def parameter_error(_: Request, error: RequestValidationError) -> JSONResponse:
        return _problem("; ".join(map(problem_text, error.errors())), 422)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> JSONResponse:
        # Nobody is there to read it; without a handler it would look like a fault of ours.
        return _problem("body: expected whole, the sender went away", 400)

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> JSONResponse:
        # The framework logs the trace; the sender learns that nothing was promised.
        return _problem(f"expected no fault of the server's own, got {type(error).__name__}", 500)


def _problem(text: str, status: int, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers)


def _add_operation(app: FastAPI, store: Store, guard: Guard) -> None:
    @app.get(
        "/healthz",
        dependencies=guard.readers(),
        response_model=Health,
        responses=problems(401, 503),
        tags=["operation"],
    )
    def health() -> dict[str, str]:
        """Whether the server reads its store."""
        store.gallery_version()
        return {"status": "ok", "version": __version__}

    @app.get("/openapi.json", dependencies=guard.readers(), include_in_schema=False)
    def document() -> JSONResponse:
        return JSONResponse(_describe(app))


def _describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the models of the bodies that the routes read themselves."""
    document = get_openapi(
        title=app.title, version=app.version, description=_SUMMARY, routes=app.routes
    )
    schemas = document["components"]["schemas"]
    for model in REQUEST_BODIES:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    return document
