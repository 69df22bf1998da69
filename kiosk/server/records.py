"""What was recorded: JSON for a program, a page for a person."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import asdict
from datetime import date
from importlib import resources
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Header, Query
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import AfterValidator

from kiosk.server.auth import Guard
from kiosk.server.documents import Attendance, problems
from kiosk.server.store import Store
from kiosk.server.tables import Filter

_HEADERS = {"Cache-Control": "no-store", "Vary": "Accept"}


def _is_day(text: str) -> str:
    if text:
        date.fromisoformat(text)
    return text


# A form without a script sends its empty fields: they are no filter.
Day = Annotated[str, Query(pattern=r"^(\d{4}-\d{2}-\d{2})?$"), AfterValidator(_is_day)]
Name = Annotated[str, Query(max_length=200)]
Limit = Annotated[int, Query(ge=1, le=1000)]
PageNumber = Annotated[int, Query(ge=1, le=1_000_000)]
_LIMIT = 200


def router(store: Store, guard: Guard) -> APIRouter:
    """GET /attendance, and / that leads there."""
    routes = APIRouter(tags=["records"])
    document = _Page()

    @routes.get("/", include_in_schema=False)
    def start() -> Response:
        return RedirectResponse("/attendance")

    @routes.get(
        "/attendance",
        dependencies=guard.readers(),
        response_model=Attendance,
        responses={
            200: {"content": {"text/html": {"schema": {"type": "string"}}}},
            **problems(401, 422, 503),
        },
    )
    def attendance(
        *,
        accept: Annotated[str, Header()] = "",
        day: Day = "",
        employee: Name = "",
        device: Name = "",
        page: PageNumber = 1,
        limit: Limit = _LIMIT,
    ) -> Response:
        """Records of one UTC day, employee and kiosk, the newest first, in pages of `limit`.

        JSON, or HTML by `Accept`. A page beyond the last is empty, and `pages` says which is.
        """
        # No id begins or ends with a space, but what is pasted often does.
        wanted = Filter(day or None, employee.strip() or None, device.strip() or None)
        total = store.count(wanted)
        shown = {
            "attendance": store.attendance(wanted, limit=limit, offset=(page - 1) * limit),
            "total": total,
            "page": page,
            "pages": max(1, -(-total // limit)),
            "alarms": store.alarms(),
        }
        if not _wants_page(accept):
            return JSONResponse(shown, headers=_HEADERS)
        known = store.recorded()
        return document.render(shown | known | _places(wanted, shown, limit))

    return routes


def _places(wanted: Filter, shown: dict[str, Any], limit: int) -> dict[str, Any]:
    """What the page says of where it stands, and where its links lead: they keep the filter."""
    page, pages = shown["page"], shown["pages"]
    kept = {name: value for name, value in asdict(wanted).items() if value}
    kept |= {"limit": str(limit)} if limit != _LIMIT else {}

    def link(number: int) -> str:
        query = urlencode(kept | ({"page": str(number)} if number > 1 else {}))
        return f"/attendance?{query}" if query else "/attendance"

    return {
        "wanted": wanted,
        "limit": None if limit == _LIMIT else limit,
        "first": (page - 1) * limit + 1,
        "newer": link(page - 1) if 1 < page <= pages else None,
        "older": link(page + 1) if page < pages else None,
        "newest": link(1),
        "oldest": link(pages),
    }


def _wants_page(accept: str) -> bool:
    """Whether HTML is named, and before JSON if both are: nobody who asks writes weights."""
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    if "text/html" not in kinds:
        return False
    return "application/json" not in kinds[: kinds.index("text/html")]


class _Page:
    """One document: style and script are in it, and nothing else may be loaded or run."""

    def __init__(self) -> None:
        folder = resources.files("kiosk.server") / "pages"
        self._style = (folder / "attendance.css").read_text(encoding="utf-8")
        self._script = (folder / "attendance.js").read_text(encoding="utf-8")
        environment = Environment(
            loader=PackageLoader("kiosk.server", "pages"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._template = environment.get_template("attendance.html")
        self._headers = _HEADERS | {
            "Content-Security-Policy": (
                f"default-src 'none'; style-src {_source(self._style)};"
                f" script-src {_source(self._script)};"
                " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
            ),
            "Referrer-Policy": "no-referrer",
        }

    def render(self, shown: dict[str, Any]) -> HTMLResponse:
        """The page of some records."""
        text = self._template.render(shown, style=self._style, script=self._script)
        return HTMLResponse(text, headers=self._headers)


def _source(text: str) -> str:
    """A hash source (Content Security Policy Level 3, 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
