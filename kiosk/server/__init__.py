"""The reference attendance server: wire in, match, record, show."""
