"""The hall: F2 tokens, attendance messages, signatures and receipts, as bytes on the wire."""
