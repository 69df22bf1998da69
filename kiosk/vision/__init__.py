"""The seeing room: from pixels to embeddings, the same code for enrolment, daemon and validation."""
