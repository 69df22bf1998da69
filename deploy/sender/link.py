"""The way to a Pi: one ssh connection, and the conversation that `board.session` describes."""

from __future__ import annotations

import io
import json
import select
import shlex
import shutil
import subprocess
import tempfile
import zipfile
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from sender.build import File
from sender.hosts import Host
from sender.refusal import DeployError

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]
_CHUNK = 1 << 16
# Unattended: nothing is asked for; a link that is gone is noticed within a minute.
_OPTIONS = (
    *("-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=10"),
    *("-o", "ServerAliveCountMax=6", "-o", "LogLevel=ERROR", "-o", "Compression=no"),
)
# Tools there may speak another language, and what they say is looked at.
_ENGLISH = "export LC_ALL=C"
# From here to the first word of a shell there.
_OPENING_S = 120.0
# ssh ends so soon once the program there has ended.
_LAST_WORDS_S = 5.0
_CAUSES = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "expected the host key of before, got another one",
     "somebody else may answer there; if the card was written anew: ssh-keygen -R '{known}'"),
    ("Host key verification failed", "expected a host key that is known here, got one that is not",
     "look at the key once and accept it: ssh -p {port} {user}@{address} true"),
    ("Permission denied (", "expected to be let in as {user} by a key, it was refused",
     "put your key there: ssh-copy-id -p {port} {user}@{address}"),
    # sudo asks whoever may not use it first, and tells it afterwards.
    ("a password is required", "expected that {user} may use sudo, it asks for a password there",
     "let the user use sudo, without a password (visudo), or deploy as root: PI_USER=root"),
    ("a terminal is required", "expected that {user} may use sudo, it asks for a password there",
     "let the user use sudo, without a password (visudo), or deploy as root: PI_USER=root"),
    ("is not in the sudoers", "expected that {user} may use sudo there, it is not so",
     "add the user to the group sudo, or deploy as root: PI_USER=root"),
    ("not allowed to execute", "expected that {user} may use all of sudo, it is not so",
     "allow it (visudo), or deploy as root: PI_USER=root"),
    ("sudo: not found", "expected sudo there, it is not", "deploy as root: PI_USER=root"),
    ("account is currently not available", "expected that {user} may log in there, it is not so",
     "say another one: PI_USER="),
    ("Could not resolve", "expected a name with an address, {address} has none",
     "check PI= and the name service"),
    ("Connection refused", "expected an ssh server at port {port}, none answers",
     "switch it on: sudo systemctl enable --now ssh"),
    ("Network is unreachable", "expected a way to it, this machine has none",
     "is this machine on its network? check PI="),
    ("No route to host", "expected a way to it, there is none", "is it on, and on this network?"),
    ("Connection timed out", "expected an answer, got none", "is it on, and on this network?"),
    ("Operation timed out", "expected an answer, got none", "is it on, and on this network?"),
    ("System is booting up", "expected it to be up, it is still booting", "try again in a minute"),
    ("python3: not found", "expected python3 there, it is not",
     "install the 64-bit Raspberry Pi OS"),
    ("python3: command not found", "expected python3 there, it is not",
     "install the 64-bit Raspberry Pi OS"),
)  # fmt: skip


class Link:
    """A session with one Pi: requests out, replies in, the lock of a deploy held meanwhile."""

    def __init__(self, host: Host, board: Path, *, who: str, origin: str) -> None:
        """`board`: the folder of the program that runs on the Pi; it is sent first."""
        self.host = host
        self._board = board
        self._opening = {"who": who, "from": origin}
        self._running: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] = io.BytesIO()
        self._open = False
        # What a login, or a shell there, printed: it may say why there is no reply.
        self._printed: deque[bytes] = deque(maxlen=20)

    def __enter__(self) -> Link:
        program = zipped(self._board)
        sudo = "" if self.host.user == "root" else "sudo -n "
        # A login script may leave a line open. The program lies in memory where there is such a
        # place (a full card or a read-only one is told in words) until the end, however that comes.
        # The system's own Python runs it: another one on the path would name another version.
        script = (
            f"{_ENGLISH}; echo; d=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)"
            f' && trap "rm -rf $d" EXIT && head -c {len(program)} >$d/board.pyz'
            f" && {sudo}/usr/bin/python3 -B $d/board.pyz serve"
        )
        command = self.ssh(script)
        # A file takes whatever comes: a pipe that nobody reads would stop all of it one day.
        self._stderr = tempfile.TemporaryFile()
        self._running = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr
        )
        try:
            self._write(program)
            self._send(self._opening)
            self._await_opening()
            self._reply(lambda _: None)
            self._open = True
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        """The Pi sees the end of what it reads, and ends; nothing of it stays open here."""
        process = self._process
        try:
            if process.stdin is not None:
                process.stdin.close()
            process.wait(20)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
        for stream in (process.stdout, self._stderr):
            if stream is not None:
                stream.close()

    def ssh(self, script: str) -> list[str]:
        """The command that runs a script there; DeployError without an ssh here."""
        if shutil.which("ssh") is None:
            raise DeployError("ssh expected here, it is not there", "install openssh-client")
        where = ("-p", str(self.host.port), "-l", self.host.user, self.host.address)
        return ["ssh", *_OPTIONS, *where, f"sh -c {shlex.quote(script)}"]

    def ask(self, name: str, say: Say = lambda _: None, **arguments: Any) -> Any:
        """One request and its reply; DeployError for a refusal, or when the link is lost."""
        self._send({"do": name, **arguments})
        return self._reply(say)

    def send(self, file: File, offset: int, progress: Progress) -> None:
        """Send a file's bytes from `offset` on."""
        self._send({"do": "receive", **file.facts, "offset": offset})
        with file.path.open("rb") as stream:
            stream.seek(offset)
            sent = offset
            while chunk := stream.read(_CHUNK):
                self._write(chunk)
                sent += len(chunk)
                progress(file.path.name, sent, file.size)
        self._reply(lambda _: None)

    def _await_opening(self) -> None:
        """Wait for the first word: somebody may answer there who never says any."""
        stream = self._process.stdout
        if stream is not None and not select.select([stream], [], [], _OPENING_S)[0]:
            raise DeployError(f"{self.host.name}: expected an answer within {_OPENING_S:g} s")

    def _send(self, request: dict[str, Any]) -> None:
        self._write(json.dumps(request).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        stream = self._process.stdin
        try:
            if stream is not None:
                stream.write(data)
                stream.flush()
        except OSError as error:
            raise self._lost() from error

    def _reply(self, say: Say) -> Any:
        stream = self._process.stdout
        while stream is not None and (line := stream.readline()):
            told = _reply_in(line)
            if "say" in told:
                say(told["say"])
            elif "failed" in told:
                raise self._failed(told)
            elif "done" in told:
                return told["done"]
            else:
                self._printed.append(line)
        raise self._lost()

    def _failed(self, told: dict[str, Any]) -> DeployError:
        failed = told["failed"]
        return DeployError(f"{self.host.name}: {failed['what']}", failed["hint"])

    @property
    def _process(self) -> subprocess.Popen[bytes]:
        if self._running is None:
            raise DeployError("expected a session with the Pi, there is none")
        return self._running

    def _lost(self) -> DeployError:
        """Why no more can be sent or read: what the Pi said last, else ssh's own words."""
        process = self._process
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LAST_WORDS_S)
        process.kill()
        while process.stdout is not None and (line := process.stdout.readline()):
            told = _reply_in(line)
            if "failed" in told:
                return self._failed(told)
            self._printed.append(line)
        process.wait()
        self._stderr.seek(0)
        said = self._stderr.read()
        if not self._open:
            return self.cause(b"".join(self._printed) + said, "the connection failed")
        return self.cause(said, "the link was lost", "what runs there goes on by itself; try again")

    def cause(self, said: bytes, otherwise: str, hint: str = "") -> DeployError:
        """What ssh's words mean, and what to do; `otherwise` where they are not known."""
        text = said.decode("utf-8", errors="replace")
        names = {key: getattr(self.host, key) for key in ("user", "address", "port")}
        names["known"] = (
            names["address"] if self.host.port == 22 else "[{address}]:{port}".format(**names)
        )
        for words, what, advice in _CAUSES:
            if words in text:
                told = f"{self.host.name}: {what.format(**names)}"
                return DeployError(told, advice.format(**names))
        last = " | ".join(text.strip().splitlines()[-3:]) or "no word from it"
        return DeployError(f"{self.host.name}: {otherwise}: {last}", hint)


def _reply_in(line: bytes) -> dict[str, Any]:
    """The reply that a line is; nothing for one that a login script printed."""
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def zipped(board: Path) -> bytes:
    """The program for the Pi as one file that its Python runs; the same bytes each time."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        entrance = (board / "__main__.py").read_bytes()
        archive.writestr(zipfile.ZipInfo("__main__.py"), entrance, zipfile.ZIP_DEFLATED)
        for path in sorted(board.glob("*.py")):
            if path.name != "__main__.py":
                name = zipfile.ZipInfo(f"board/{path.name}")
                archive.writestr(name, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return data.getvalue()
