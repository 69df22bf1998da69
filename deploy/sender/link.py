"""The way to a Pi: one ssh connection, and the conversation that `board.session` describes."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

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
_CAUSES = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "its host key is another one than before",
     "somebody else may answer there; if the card was written anew: ssh-keygen -R {address}"),
    ("Host key verification failed", "its host key is not known yet",
     "look at the key once and accept it: ssh -p {port} {user}@{address} true"),
    ("Permission denied", "it does not let {user} in without a password",
     "put your key there: ssh-copy-id -p {port} {user}@{address}"),
    ("a password is required", "sudo asks {user} for a password there",
     "let the user use sudo without one, or deploy as root: PI_USER=root"),
    ("a terminal is required", "sudo asks {user} for a password there",
     "let the user use sudo without one, or deploy as root: PI_USER=root"),
    ("is not in the sudoers", "{user} may not use sudo there",
     "add the user to the group sudo, or deploy as root: PI_USER=root"),
    ("Could not resolve", "no such name", "check PI= and the name service"),
    ("Connection refused", "no ssh server answers at port {port}",
     "switch it on: sudo systemctl enable --now ssh"),
    ("No route to host", "it cannot be reached", "is it on, and on this network?"),
    ("Connection timed out", "it does not answer", "is it on, and on this network?"),
    ("Operation timed out", "it does not answer", "is it on, and on this network?"),
    ("System is booting up", "it is still booting", "try again in a minute"),
    ("python3: not found", "it has no python3", "install the 64-bit Raspberry Pi OS"),
    ("python3: command not found", "it has no python3", "install the 64-bit Raspberry Pi OS"),
)  # fmt: skip


class Link:
    """A session with one Pi: requests out, replies in, the lock of a deploy held meanwhile."""

    def __init__(self, host: Host, board: Path, *, who: str, origin: str) -> None:
        """`board`: the folder of the program that runs on the Pi; it is sent first."""
        self.host = host
        self._board = board
        self._opening = {"who": who, "from": origin}
        self._running: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Link:
        folder = self._sent_program()
        sudo = "" if self.host.user == "root" else "sudo -n "
        # Removed at the end, whichever way that comes.
        script = f"trap 'rm -rf {folder}' EXIT; {sudo}python3 -B {folder}/board.pyz serve"
        self._running = subprocess.Popen(
            self.ssh(script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._send(self._opening)
        self._reply(lambda _: None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._process
        try:
            if process.stdin is not None:
                process.stdin.close()
            process.wait(20)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()

    def ssh(self, script: str) -> list[str]:
        """The command that runs a script there."""
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

    def _sent_program(self) -> str:
        script = "umask 077; d=$(mktemp -d) && cat >$d/board.pyz && echo $d"
        program = zipped(self._board)
        try:
            done = subprocess.run(
                self.ssh(script), input=program, capture_output=True, timeout=120, check=False
            )
        except FileNotFoundError as error:
            raise DeployError("ssh expected, it is not there", "install openssh-client") from error
        except subprocess.TimeoutExpired as error:
            raise DeployError(f"{self.host.name}: no answer within 120 s") from error
        folder = done.stdout.decode("utf-8", errors="replace").strip()
        if done.returncode != 0 or not folder.startswith("/") or len(folder.split()) != 1:
            raise self.cause(done.stderr + done.stdout, "the connection failed")
        return shlex.quote(folder)

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
            try:
                told = json.loads(line)
            except ValueError:
                # What a login script prints.
                continue
            if "say" in told:
                say(told["say"])
            elif "failed" in told:
                failed = told["failed"]
                raise DeployError(f"{self.host.name}: {failed['what']}", failed["hint"])
            else:
                return told["done"]
        raise self._lost()

    @property
    def _process(self) -> subprocess.Popen[bytes]:
        if self._running is None:
            raise DeployError("expected a session with the Pi, there is none")
        return self._running

    def _lost(self) -> DeployError:
        self._process.kill()
        _, stderr = self._process.communicate()
        return self.cause(
            stderr, "the link was lost", "what runs there goes on by itself; try again"
        )

    def cause(self, said: bytes, otherwise: str, hint: str = "") -> DeployError:
        """What ssh's words mean, and what to do; `otherwise` where they are not known."""
        text = said.decode("utf-8", errors="replace")
        names = {key: getattr(self.host, key) for key in ("user", "address", "port")}
        for words, what, advice in _CAUSES:
            if words in text:
                told = f"{self.host.name}: {what.format(**names)}"
                return DeployError(told, advice.format(**names))
        last = " | ".join(text.strip().splitlines()[-3:]) or "no word from it"
        return DeployError(f"{self.host.name}: {otherwise}: {last}", hint)


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
