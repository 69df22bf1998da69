"""A server's URL: what it must not hold, and whether what goes there leaves this machine."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit


def url_problems(url: str) -> Iterator[str]:
    """What a server's URL must not hold. It is not repeated: a password may stand in it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        yield "server.url: expected a host and a port of 1 to 65535, got others"
        return
    if not host or port == 0:
        yield "server.url: expected a host and a port of 1 to 65535, got none"
    if "@" in parts.netloc or "\\" in parts.netloc:
        yield "server.url: expected no user and password; the server knows a kiosk by its sign key"
    if "?" in url or "#" in url:
        yield "server.url: expected no query and no fragment; paths are added at its end"


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine itself, by whichever parser reads it."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        # What some parsers take for a user's name, others take for the host.
        if "@" in parts.netloc or "\\" in parts.netloc:
            return False
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        # A name that is no address, or brackets that do not close.
        return False


def in_the_clear(url: str) -> bool:
    """Whether what is sent to a URL leaves this machine unencrypted."""
    return url.startswith("http://") and not is_loopback(url)
