"""What no log may hold, learnt where it is made, and looked for in every line that is logged."""

import base64
import functools
import logging
import re
import sys

from kiosk import state, vault
from kiosk.entry import entry_of
from kiosk.wire import f2

# Of a secret and of an embedding so many characters are never by chance in a line.
WINDOW = 32
_RUN = re.compile(rf"[A-Za-z0-9+/=_-]{{{WINDOW},}}")
_BASE64 = (base64.b64encode, base64.urlsafe_b64encode)
_METHODS = ("debug", "info", "warning", "error", "critical", "exception")


class Confidential:
    """Secrets, keys and embeddings of this process; `found` says where one was logged."""

    def __init__(self):
        self._known = set()
        self.found = []

    def learn(self, value):
        """Bytes are known as hexadecimal and in both alphabets of base64; a text as it is."""
        texts = [value]
        if isinstance(value, bytes):
            texts = [value.hex(), *(one(value).decode() for one in _BASE64)]
        self._known |= {text[:WINDOW].lower() for text in texts}

    def is_in(self, text):
        """Whether any of them is in a text."""
        return any(
            run[start : start + WINDOW].lower() in self._known
            for run in _RUN.findall(text)
            for start in range(len(run) - WINDOW + 1)
        )

    def look_at(self, record):
        """Note a record whose line in the journal would hold one."""
        entry = entry_of(record, names=True, traces=True)
        if self.is_in("\n".join([entry.text, *entry.trace])):
            self.found.append(entry.event)


def install(known):
    """Learn from the vault and the wire, look at the kiosk's loggers, enabled or not."""
    _after(vault, "_derive", lambda result, secret, _: [known.learn(secret), known.learn(result)])
    _after(f2, "encode", lambda token, _: known.learn(token.data))
    _after(state, "pack_vector", lambda text, _: known.learn(text))
    for name in _METHODS:
        _watch(name, known)


def _after(module, name, note):
    original = getattr(module, name)

    @functools.wraps(original)
    def noting(*arguments):
        result = original(*arguments)
        note(result, *arguments)
        return result

    setattr(module, name, noting)


def _watch(name, known):
    original = getattr(logging.Logger, name)
    level = logging.ERROR if name == "exception" else logging.getLevelNamesMapping()[name.upper()]

    @functools.wraps(original)
    def watched(self, message, *arguments, **options):
        if self.name.startswith("kiosk"):
            told = options.get("exc_info") or name == "exception"
            error = sys.exc_info() if told else None
            place, extra = (self.name, level, "", 0), options.get("extra")
            known.look_at(self.makeRecord(*place, message, arguments, error, extra=extra))
        options["stacklevel"] = options.get("stacklevel", 1) + 1
        return original(self, message, *arguments, **options)

    setattr(logging.Logger, name, watched)
