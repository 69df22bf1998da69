"""The capturing room: frames from a camera, or from a replay that obeys a camera's rules."""
