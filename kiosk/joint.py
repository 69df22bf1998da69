"""Mistakes of a configuration that lie between keys.

A rule is asked as soon as its own keys are right, whatever else the file gets wrong.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kiosk.address import in_the_clear, url_problems

# sun_path of unix(7) has 108 bytes, with the name of the socket and a zero at the end.
MAX_RUNTIME_DIR = 107 - len("/control.sock")

Rule = tuple[tuple[str, ...], Callable[..., str | None]]


def _when(broken: object, problem: str) -> str | None:
    return problem if broken else None


_JOINT_RULES: tuple[Rule, ...] = (
    (
        ("server.url", "server.allow_plain_http"),
        lambda url, allowed: _when(
            in_the_clear(url) and not allowed and not any(url_problems(url)),
            f"server.url = {url!r}: expected https (plain http only to loopback);"
            " server.allow_plain_http = true permits it and the journal repeats it at every start",
        ),
    ),
    (
        ("server.client_cert_file", "server.client_key_file"),
        lambda cert, key: _when(
            bool(cert) != bool(key),
            "server.client_cert_file and server.client_key_file: expected both or neither",
        ),
    ),
    (
        ("server.require_signed_receipts", "server.key_id"),
        lambda required, key_id: _when(
            required is True and not key_id,
            "server.require_signed_receipts = true: expected server.key_id to be set with it",
        ),
    ),
    (
        ("server.accept_plain_receipts", "server.key_id"),
        lambda accepted, key_id: _when(
            accepted and key_id,
            "server.accept_plain_receipts = true: a plain server cannot sign; leave key_id empty",
        ),
    ),
    (
        ("server.backoff_base_s", "server.backoff_cap_s"),
        lambda base_s, cap_s: _when(
            cap_s < base_s, "server.backoff_cap_s: expected at least server.backoff_base_s"
        ),
    ),
    (
        ("camera.source", "camera.replay"),
        lambda source, replay: _when(
            source == "replay" and not replay,
            "camera.replay: expected at least one [[camera.replay]] with a path",
        ),
    ),
    (
        ("camera.source", "camera.device"),
        lambda source, device: _when(
            source == "v4l2" and not device,
            'camera.device: expected a device path for source "v4l2"',
        ),
    ),
    (
        ("recognition.frames_to_agree", "recognition.frames_to_give_up"),
        lambda agree, give_up: _when(
            give_up < agree,
            "recognition.frames_to_give_up: expected at least recognition.frames_to_agree",
        ),
    ),
    (
        ("models.embedder", "models.also"),
        lambda embedder, also: _when(
            also == embedder,
            'models.also: expected a model of another space than models.embedder, or ""',
        ),
    ),
    (
        ("paths.runtime_dir",),
        lambda folder: _when(
            len(os.fsencode(folder)) > MAX_RUNTIME_DIR,
            f"paths.runtime_dir: expected at most {MAX_RUNTIME_DIR} bytes, for a socket's path has"
            f" no more room, got {len(os.fsencode(folder))}",
        ),
    ),
)


def joint_problems(known: Mapping[str, Any]) -> Iterator[str]:
    """One line for each mistake; `known` holds the values that are right by their keys."""
    if "server.url" in known:
        yield from url_problems(known["server.url"])
    for keys, rule in _JOINT_RULES:
        if all(key in known for key in keys):
            problem = rule(*(known[key] for key in keys))
            if problem is not None:
                yield problem
