"""The real server with a network before it, for a test and the stations that it sets up."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from faults.chaos import Proxy
from faults.roll import Roll, alarms, at_server, call
from faults.serving import DATABASE
from faults.station import Device, Station, WaitingClock


class Network:
    """`served`: the folder of a server and its URL. Stations end with it."""

    def __init__(self, served: tuple[Path, str], scratch: Path) -> None:
        folder, self._url = served
        self.database = folder / DATABASE
        self._scratch = scratch
        self.proxy = Proxy("127.0.0.1", int(urlsplit(self._url).port or 0))
        self._stations: list[Station] = []

    def station(
        self, *, timeout_s: float, device: Device | None = None, **mistakes: object
    ) -> Station:
        """A new kiosk, or an old device with a new queue."""
        if device is None:
            device = Device(self._url)
            device.register()
        path = self._scratch / f"{len(self._stations)}.db"
        station = Station(
            path, device, self.proxy, clock=WaitingClock(), timeout_s=timeout_s, **mistakes
        )
        self._stations.append(station)
        return station

    def roll(self, *stations: Station) -> Roll:
        """Call the roll of one device, which stood at these stations."""
        device = stations[0].device.name
        status = [station.outbox.status() for station in stations]
        return call(
            [one for station in stations for one in station.punched],
            list(at_server(self.database, device)),
            aside=sum(one.quarantined for one in status),
            waiting=sum(one.pending for one in status),
            alarms=alarms(self.database, device),
        )

    def close(self) -> None:
        for station in self._stations:
            station.close()
        self.proxy.close()


@contextmanager
def network(served: tuple[Path, str], scratch: Path) -> Iterator[Network]:
    """Quiet: thousands of failures, each told as it should be, are not to be told here."""
    for name in ("kiosk", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    opened = Network(served, scratch)
    try:
        yield opened
    finally:
        opened.close()
