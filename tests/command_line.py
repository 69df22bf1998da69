"""A command as a user runs it, inside the test's process."""

from kiosk.__main__ import main


def run(capsys, *arguments):
    """Exit status, standard output and standard error of one command."""
    capsys.readouterr()
    try:
        status = main([str(a) for a in arguments])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err
