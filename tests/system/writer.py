"""Runs on the virtual Pi: a kiosk's queue under load, for so many seconds, on a disk that is cut.

`writer.py FOLDER ACCOUNT SECONDS BUG`: what it promises is in the account, which lies elsewhere.
"""

import os
import sys
import threading

from faults.worker import Order, run
from kiosk.outbox import database

folder, account, seconds, bug = sys.argv[1:]
if bug == "no-fsync":
    # What a program does that trusts the page cache; the queue itself must not notice.
    for name in ("fsync", "fdatasync"):
        setattr(os, name, lambda _: None)
    database.PRAGMAS = tuple(
        (name, "OFF", 0) if name == "synchronous" else (name, *rest)
        for name, *rest in database.PRAGMAS
    )
threading.Timer(float(seconds), os._exit, (0,)).start()
run(Order(folder, account, ("load",)))
