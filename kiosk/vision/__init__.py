"""The seeing room: pixels to embeddings, one code for enrolment, daemon and validation."""
