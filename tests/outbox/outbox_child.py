"""A kiosk in small, to be killed: puts, sends to a file that plays the server, settles.

Arguments: folder, seed, and "honest" or "careless". Prints each event id that it promises to have
recorded. The careless one promises first and records in batches, as a queue in memory does.
"""

import random
import sys
import threading
from pathlib import Path

import punching  # the punches and the clock of this folder's tests

from kiosk.outbox.store import Outbox
from kiosk.types import Receipt, ReceiptStatus
from kiosk.vault import Vault

CARELESS_BATCH = 50


def main() -> None:
    folder, seed, manner = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    clock = punching.StillClock()
    punches = punching.Punches(clock, rng=random.Random(seed))
    outbox = Outbox(
        folder / "outbox.db",
        vault=Vault(bytes(range(32))),
        device_id=punching.DEVICE,
        signer=None,
        clock=clock,
    )
    outbox.start()
    threading.Thread(target=send, args=(outbox, folder / "server.jsonl"), daemon=True).start()
    kept: list[object] = []
    while True:
        punch = punches.make()
        if manner == "honest":
            outbox.put(punch)
        else:
            kept.append(punch)
        print(punch.event_id, flush=True)
        if len(kept) == CARELESS_BATCH:
            for late in kept:
                outbox.put(late)
            kept.clear()


def send(outbox: Outbox, server: Path) -> None:
    """The body reaches the server, and only then the outbox is told."""
    with server.open("ab", buffering=0) as line:
        while True:
            envelopes = outbox.lease(3)
            if not envelopes:
                outbox.arrived.wait(1.0)
                outbox.arrived.clear()
                continue
            line.write(b"".join(envelope.body + b"\n" for envelope in envelopes))
            ok = Receipt(ReceiptStatus.OK, 0.0)
            outbox.settle_all([(envelope.event_id, ok) for envelope in envelopes])


if __name__ == "__main__":
    main()
