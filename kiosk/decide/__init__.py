"""The deciding room: pure functions of sightings, of the gallery and of the time they are given."""
