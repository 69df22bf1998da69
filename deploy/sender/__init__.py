"""The side of a deploy that runs on the sender's machine: Linux or macOS, Python 3.11 or newer."""
