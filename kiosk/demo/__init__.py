"""The demonstration: the whole product on a replayed walk-up, with the reference server."""
