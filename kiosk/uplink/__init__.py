"""The uplink: one event after the other to the attendance server, until it has said so."""
