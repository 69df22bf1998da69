"""Who may ask: a bearer token where one is set, and no other web site's page ever."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request
from fastapi.security import (
    HTTPAuthorizationCredentials,
    HTTPBasic,
    HTTPBasicCredentials,
    HTTPBearer,
)
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from kiosk.address import is_loopback

_SAFE_METHODS = {"GET", "HEAD"}
# A browser's own word on who asks: the page itself, or somebody typing the address.
_OWN_SITES = {None, "same-origin", "none"}

_bearer = HTTPBearer(auto_error=False, description="The token of --token-file.")
_basic = HTTPBasic(auto_error=False, description="For a browser: any user, the token as password.")


@dataclass(frozen=True, slots=True)
class Guard:
    """The server's token; None lets everybody in, which only a loopback server does."""

    token: str | None = field(default=None, repr=False)

    def fits(self, came: str | None) -> bool:
        """Whether a token is the right one, compared in constant time."""
        if self.token is None:
            return True
        return came is not None and hmac.compare_digest(came.encode(), self.token.encode())

    def machines(self) -> Sequence[Any]:
        """Dependencies of a route that changes something: the bearer token."""

        def check(bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
            if not self.fits(None if bearer is None else bearer.credentials):
                raise _unauthorised("Bearer")

        return [] if self.token is None else [Depends(check)]

    def readers(self) -> Sequence[Any]:
        """Dependencies of a route that only shows: a browser may give the token as password.

        Not for routes that change something: a browser sends a password along with what other
        sites' pages ask for.
        """

        def check(
            bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
            basic: Annotated[HTTPBasicCredentials | None, Depends(_basic)],
        ) -> None:
            password = None if basic is None else basic.password
            if not self.fits(password if bearer is None else bearer.credentials):
                raise _unauthorised('Basic realm="attendance", charset="UTF-8"')

        return [] if self.token is None else [Depends(check)]

    def bearer_fits(self, request: Request) -> bool:
        """Whether a request of a route that asks for none carries the right token."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return self.fits(token.strip() if scheme.lower() == "bearer" else None)

    def objection(self, method: str, headers: Headers) -> tuple[int, str] | None:
        """Status and reason if a page of another web site sent this through somebody's browser.

        Without a token the only protection is that nobody else reaches this address, and a
        browser on this machine does: for a page of another site (Fetch Metadata and Origin tell),
        or by a name that somebody made to point here (the Host is then that name).
        """
        host = headers.get("host", "")
        if self.token is None and not is_loopback(f"http://{host}"):
            return 421, "Host: expected a name of this machine itself, got another"
        if method in _SAFE_METHODS:
            return None
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site")
        if site not in _OWN_SITES or (origin is not None and origin.partition("//")[2] != host):
            return 403, "Origin: expected no page of another site, got one"
        return None


class SiteGuard:
    """Stands before the routes, so that no path is answered to another site, known or unknown."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the objection, or hand on."""
        if scope["type"] == "http":
            objection = self._guard.objection(scope["method"], Headers(scope=scope))
            if objection is not None:
                status, reason = objection
                await JSONResponse({"error": reason}, status)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _unauthorised(challenge: str) -> HTTPException:
    return HTTPException(
        401,
        "Authorization: expected this server's bearer token, got none or another",
        headers={"WWW-Authenticate": challenge},
    )
