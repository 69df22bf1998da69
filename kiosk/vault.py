"""The device's secret and all that is done with it: the only importer of cryptography.

Sealing is AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce; every key is derived from the
32-byte device secret with HKDF-SHA256 (RFC 5869), the label as `info`. Also here: replacing and
creating files in such a way that a power cut leaves the old or the new one, never half of one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kiosk.errors import VaultError

KEY_FILE = "device.secret"
SECRET_BYTES = 32
TAG_BYTES = 16

# Sealed bytes: this header, 12 bytes of nonce, ciphertext with its 16-byte tag.
_HEADER = b"KSV\x01"
_NONCE_BYTES = 12
_GCM_TAG_BYTES = 16
_LEAST_SEALED = len(_HEADER) + _NONCE_BYTES + _GCM_TAG_BYTES
_MAX_SMALL_FILE = 4096


class Vault:
    """Seals, opens and tags bytes under one device secret."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            raise VaultError(f"expected a secret of {SECRET_BYTES} bytes, got {len(secret)}")
        self._aead = AESGCM(_derive(secret, b"seal"))
        self._sign_key = _derive(secret, b"sign")
        self._tag_key = _derive(secret, b"tag")

    @property
    def sign_key(self) -> bytes:
        """The key of message signatures, 32 bytes: the only one that a server may be told."""
        return self._sign_key

    def seal(self, data: bytes, context: str) -> bytes:
        """Encrypt and authenticate; opens only under the same `context` (what and whose it is)."""
        nonce = os.urandom(_NONCE_BYTES)
        return _HEADER + nonce + self._aead.encrypt(nonce, data, _bound(context))

    @staticmethod
    def is_sealed(blob: bytes) -> bool:
        """Whether bytes look like what `seal` makes; only `unseal` knows."""
        return len(blob) >= _LEAST_SEALED and blob.startswith(_HEADER)

    def unseal(self, blob: bytes, context: str) -> bytes:
        """Open what `seal` made; VaultError for anything else, whatever was changed in it."""
        if len(blob) < _LEAST_SEALED:
            raise VaultError(f"{context}: expected sealed bytes, got only {len(blob)}")
        if not blob.startswith(_HEADER):
            raise VaultError(
                f"{context}: expected sealed bytes of version {_HEADER[-1]}, got another header",
                hint="it was not sealed by a kiosk, or by a later version",
            )
        nonce_end = len(_HEADER) + _NONCE_BYTES
        nonce, ciphertext = blob[len(_HEADER) : nonce_end], blob[nonce_end:]
        try:
            return self._aead.decrypt(nonce, ciphertext, _bound(context))
        except InvalidTag as cause:
            raise VaultError(
                f"{context}: expected bytes sealed here for this purpose, got ones that do not"
                " authenticate",
                hint=f"the bytes are damaged, or {KEY_FILE} is another device's",
            ) from cause

    def tag(self, text: str, label: str) -> bytes:
        """Return a 16-byte keyed hash: equal texts under a label can be found without being read.

        HMAC-SHA256, truncated; labels keep purposes apart.
        """
        name = label.encode("utf-8")
        # A lone surrogate has no UTF-8; a name that holds one is refused elsewhere, not here.
        message = len(name).to_bytes(4, "big") + name + text.encode("utf-8", "surrogatepass")
        return hmac.new(self._tag_key, message, hashlib.sha256).digest()[:TAG_BYTES]


def recovery_pair() -> tuple[bytes, bytes]:
    """Make a key pair for `seal_to` and `open_with`: private and public, 32 bytes each."""
    private = X25519PrivateKey.generate()
    return private.private_bytes_raw(), private.public_key().public_bytes_raw()


def seal_to(public: bytes, data: bytes, context: str) -> bytes:
    """Seal for whoever holds the private key of `public`: X25519 (RFC 7748) with a key made for
    this once, HKDF-SHA256 over what both sides know, then as `Vault.seal`.

    VaultError for bytes that are no public key.
    """
    once = X25519PrivateKey.generate()
    mine = once.public_key().public_bytes_raw()
    return mine + _between(once, public, mine + public).seal(data, context)


def open_with(private: bytes, blob: bytes, context: str) -> bytes:
    """Open what `seal_to` made for this key's public half; VaultError for anything else."""
    if len(private) != SECRET_BYTES:
        raise VaultError(f"expected a private key of {SECRET_BYTES} bytes, got {len(private)}")
    key = X25519PrivateKey.from_private_bytes(private)
    theirs, sealed = blob[:SECRET_BYTES], blob[SECRET_BYTES:]
    mine = key.public_key().public_bytes_raw()
    return _between(key, theirs, theirs + mine).unseal(sealed, context)


def _between(private: X25519PrivateKey, public: bytes, both: bytes) -> Vault:
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as cause:
        raise VaultError(
            f"expected a public key of {SECRET_BYTES} bytes, got {len(public)} that are none"
        ) from cause
    return Vault(_derive(shared, b"recovery" + both))


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file in one step that lasts through a power cut.

    VaultError, with the old file as it was and nothing left beside it, if that cannot be done;
    only when the folder itself cannot be synced is the new content there, but not yet certain.
    """
    with _named_failure(path), _temporary(path.parent, data, mode) as temporary:
        temporary.replace(path)
        sync_folder(path.parent)


def read_plain(path: Path, most: int, *, follow: bool = False) -> bytes:
    """A plain file of at most so many bytes; VaultError for a pipe, a folder, or a larger one.

    `follow` takes a symbolic link's target. FileNotFoundError when nothing is there.
    """
    # O_NONBLOCK: a pipe in its place must not hang the start.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    with _named_failure(path, absent=True):
        descriptor = os.open(path, flags)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise VaultError(f"{path}: expected a plain file, got something else")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(most + 1)
        finally:
            os.close(descriptor)
    if len(data) > most:
        raise VaultError(f"{path}: expected at most {most} bytes, got more")
    return data


def _derive(secret: bytes, label: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=label).derive(secret)


def _bound(context: str) -> bytes:
    return _HEADER + context.encode("utf-8")


def read_or_create(path: Path, make: Callable[[], bytes]) -> bytes:
    """Read a private file, or create it; of two creators at once both get the winner's content.

    VaultError if it is not a plain file that only this user can read.
    """
    with _named_failure(path):
        with contextlib.suppress(FileNotFoundError):  # absent is the first start, made below
            return read_private(path)
        with _temporary(path.parent, make(), 0o600) as temporary:
            # A hard link, unlike a rename, fails if the name was taken meanwhile.
            with contextlib.suppress(FileExistsError):  # a lost race: the winner's is read below
                path.hardlink_to(temporary)
            sync_folder(path.parent)
        return read_private(path)


def read_private(path: Path) -> bytes:
    """Read a small file that only this user can read; OSError, or VaultError for any other."""
    # O_NONBLOCK: a pipe in its place must not hang the start.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    try:
        _check_private(path, os.fstat(descriptor))
        return os.read(descriptor, _MAX_SMALL_FILE)
    finally:
        os.close(descriptor)


def _check_private(path: Path, facts: os.stat_result) -> None:
    """Refuse what others could have read or put there."""
    if not stat.S_ISREG(facts.st_mode):
        raise VaultError(f"{path}: expected a plain file, got something else")
    if facts.st_uid != os.geteuid():
        raise VaultError(
            f"{path}: expected an owner of user id {os.geteuid()}, got {facts.st_uid}",
            hint="run as the kiosk's own user",
        )
    if facts.st_mode & 0o077:
        raise VaultError(
            f"{path}: expected mode 0600, got {stat.S_IMODE(facts.st_mode):04o}",
            hint=f"others may have read it; chmod 600 {path}",
        )


@contextlib.contextmanager
def _temporary(folder: Path, data: bytes, mode: int) -> Iterator[Path]:
    """Yield a synced file beside the target, and remove what is left of it afterwards."""
    # mkstemp opens with O_EXCL and mode 0600, so that nobody reads along or slips in a link.
    descriptor, name = tempfile.mkstemp(prefix=".kiosk-", suffix=".tmp", dir=folder)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename or a new name in a folder last through a power cut; OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _named_failure(path: Path, *, absent: bool = False) -> Iterator[None]:
    """Turn an operating system's refusal into an error that names the file.

    `absent` lets FileNotFoundError through.
    """
    try:
        yield
    except OSError as cause:
        if absent and isinstance(cause, FileNotFoundError):
            raise
        if cause.errno == errno.ELOOP:
            raise VaultError(f"{path}: expected a plain file, got a symbolic link") from cause
        raise VaultError(
            f"{path}: expected to be readable and writable, got: {cause.strerror or cause}",
            hint="check the folder, its owner and the free space",
        ) from cause
