"""Many threads, one owner."""

import sqlite3
import threading

import pytest

from kiosk.errors import OutboxError

# A hang detector: five times what a slow machine would need.
HANG_S = 50.0


def run_all(bodies):
    threads = [threading.Thread(target=body) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_S)
        assert not thread.is_alive()


def test_puts_of_many_threads_all_arrive_once(outbox, punches, ask):
    """Every caller gets a number of its own, and all numbers are there."""
    made = [[punches.make() for _ in range(10)] for _ in range(6)]
    seqs = []
    run_all(
        [lambda share=share: seqs.extend(outbox.put(punch) for punch in share) for share in made]
    )
    numbers = sorted(int(seq.split(":")[1]) for seq in seqs)
    assert numbers == list(range(1, 61))
    assert ask(outbox, "SELECT count(DISTINCT event_id), max(number) FROM event") == [(60, 60)]


def test_the_connection_lives_in_the_owners_thread(outbox, ask):
    """SQLite itself refuses any other thread."""
    ((owner,),) = outbox._owner.ask(lambda: [(threading.current_thread().name,)])
    assert owner == "outbox"
    # The module's own guard (check_same_thread) is left on.
    with pytest.raises(sqlite3.ProgrammingError, match="thread"):
        outbox._queue.database._connection.execute("SELECT 1")


def test_nothing_accepted_is_lost_at_close(build, reopen, punches):
    """Close while others put: what was answered with a number is there, the rest was refused."""
    outbox = build()
    outbox.start()
    made = [[punches.make() for _ in range(30)] for _ in range(4)]
    accepted, refused = [], []
    some = threading.Event()

    def putter(share):
        for punch in share:
            try:
                outbox.put(punch)
            except OutboxError:
                refused.append(punch.event_id)
            else:
                accepted.append(punch.event_id)
            if len(accepted) > 10:
                some.set()

    def closer():
        assert some.wait(HANG_S)
        outbox.close(HANG_S)

    run_all([*(lambda share=share: putter(share) for share in made), closer])
    assert refused
    assert len(accepted) + len(refused) == 120
    found = reopen()
    assert found.status().pending == len(accepted)
    for event_id in accepted:
        found.quarantine(event_id, "it is there")
