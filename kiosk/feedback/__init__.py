"""What the person in front is told: a page served on loopback."""
