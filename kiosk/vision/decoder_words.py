"""What the picture libraries say of a file while it is decoded: they tell nobody but C's stderr."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

_MOST = 4096
_UNBUFFERED = 2  # _IONBF of <stdio.h>


class Words:
    """Filled when the decoding is over; empty also where C's stderr cannot be led elsewhere."""

    text = ""


class _Listener:
    """Leads C's `stderr` to a file in memory for a moment.

    glibc documents the name as a variable of the program's own (stdio.h; setting it is what
    freopen is for elsewhere). Descriptor 2 stays as it is, so that the journal, which other threads
    write meanwhile, loses nothing. The file is never closed: another thread may hold the pointer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        libc = ctypes.CDLL(None)
        self._stderr = ctypes.c_void_p.in_dll(libc, "stderr")
        libc.fdopen.restype = ctypes.c_void_p
        libc.setvbuf.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t]
        self._descriptor = os.memfd_create("decoder", os.MFD_CLOEXEC)
        self._file = libc.fdopen(self._descriptor, b"w+")
        libc.setvbuf(self._file, None, _UNBUFFERED, 0)

    @contextmanager
    def listen(self) -> Iterator[Words]:
        words = Words()
        with self._lock:
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            usual, self._stderr.value = self._stderr.value, self._file
            try:
                yield words
            finally:
                self._stderr.value = usual
                words.text = os.pread(self._descriptor, _MOST, 0).decode(errors="replace")


def _made() -> _Listener | None:
    try:
        return _Listener()
    except (OSError, ValueError, AttributeError):
        # Another C library: the lines go where they always went.
        return None


_listener = _made()
# OpenCV's own words, which go another way, repeat what the error says.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_FATAL)


@contextmanager
def listening() -> Iterator[Words]:
    """Keep what C libraries write to their stderr within, by any thread; one caller at a time."""
    if _listener is None:
        yield Words()
        return
    with _listener.listen() as words:
        yield words
