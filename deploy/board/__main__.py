"""The entrance. Until the version of Python is known to do, only what every version reads."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - this very check
    sys.stdout.write(
        '{"failed": {"what": "Python 3.11 or newer expected on the Pi, got %d.%d",'
        ' "hint": "install Raspberry Pi OS bookworm or trixie, 64-bit"}}\n' % sys.version_info[:2]
    )
    sys.exit(1)

from board.entrance import main

sys.exit(main(sys.argv[1:]))
