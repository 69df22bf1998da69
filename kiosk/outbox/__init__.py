"""The outbox: events are committed here before anything is said to the person."""
