"""The one error tree. Each class decides the fate of the work at hand and carries a hint.

KioskError
├── UserError                 the person at the keyboard can mend it (exit status 2)
│   ├── ConfigError           a configuration file does not check
│   ├── PictureError          a file is no picture, or no usable one
│   └── GalleryError          unknown person, another model's gallery, too like somebody else
├── ModelError                a model file is missing, damaged or not what the manifest says
│   ├── UnknownModelError     no manifest has a model of that id
│   └── GivenModelError       the caller named a file that is not there, or is not fit (status 2)
├── EmbeddingError            a vector that is no embedding (constant, not finite, empty)
│   └── SpaceMismatchError    two embeddings of different spaces were to be compared
├── WireError                 bytes that are not what the protocol says
│   ├── TokenError            an F2 token
│   ├── MessageError          an attendance message
│   └── ReceiptError          a server's reply
├── VaultError                sealed bytes that do not authenticate, a key that cannot be had
├── CameraError               no frame came
│   └── CameraStuckError      a call into the driver does not return
├── OutboxError               the queue on disk
│   ├── OutboxLockedError     another process owns it
│   ├── OutboxFullError       no space: nothing was recorded
│   └── OutboxBrokenError     input/output failed: what is on disk is uncertain, restart
│       └── OutboxDamagedError    the file itself is damaged: the next start sets it aside
├── UplinkError               the event was not settled
│   ├── LinkDownError         no answer, or one that asks to try again
│   └── UplinkPausedError     the server refuses this kiosk, or nobody proves to be it
│       └── BareRefusalError  an unsigned event was refused by a status alone
└── ControlError              the running daemon could not be asked
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar


class Fate(Enum):
    """What happens to the work that met the error."""

    RETRY = "retry"
    STOP = "stop"
    REFUSE = "refuse"


class KioskError(Exception):
    """Base of every error the kiosk raises on purpose.

    `message` says what was expected and what came, `hint` what to do about it;
    `str()` of the error is both on one line.
    """

    fate: ClassVar[Fate] = Fate.STOP
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UserError(KioskError):
    """Something the caller can mend: a wrong path, value or option."""

    fate = Fate.REFUSE
    exit_status = 2


class ConfigError(UserError):
    """A configuration that does not check; `problems` holds one line for every mistake."""

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class PictureError(UserError):
    """A file that is no picture, is too large, or shows no usable face."""


class GalleryError(UserError):
    """The gallery does not hold, or must not take, what was asked."""


class ModelError(KioskError):
    """A model file is missing, damaged, or not what the manifest says."""


class UnknownModelError(ModelError):
    """No manifest has a model of that id."""


class GivenModelError(ModelError):
    """A model file that the caller named is not there, or not what the command takes."""

    fate = Fate.REFUSE
    exit_status = UserError.exit_status


class EmbeddingError(KioskError):
    """A vector that is not an embedding: empty, constant, not finite or of no length."""

    fate = Fate.REFUSE


class SpaceMismatchError(EmbeddingError):
    """Embeddings of two spaces (weights and alignment) must never be compared."""


class WireError(KioskError):
    """Bytes or fields that are not what the protocol says."""

    fate = Fate.REFUSE


class TokenError(WireError):
    """A malformed F2 token; the message names the field."""


class MessageError(WireError):
    """A malformed attendance message; the message names the field."""


class ReceiptError(WireError):
    """A reply that is no receipt for this event: the event stays unsettled."""

    fate = Fate.RETRY


class VaultError(KioskError):
    """Sealed bytes that do not authenticate, or a key that cannot be had."""


class CameraError(KioskError):
    """No frame came; the camera is to be opened again."""

    fate = Fate.RETRY


class CameraStuckError(CameraError):
    """A call into the camera's driver does not return: a fresh process may be needed."""


class OutboxError(KioskError):
    """The queue on disk."""


class OutboxLockedError(OutboxError):
    """Another process owns the queue."""


class OutboxFullError(OutboxError):
    """No space left: the transaction was rolled back and nothing was recorded."""


class OutboxBrokenError(OutboxError):
    """Input or output failed; what is on disk is uncertain until the file is read again."""


class OutboxDamagedError(OutboxBrokenError):
    """The file is damaged; the next start sets it aside and takes over what can be trusted."""


class UplinkError(KioskError):
    """The event was not settled by the server.

    `min_delay_s` is what the server asked for (Retry-After), 0 if nothing.
    """

    fate = Fate.RETRY

    def __init__(self, message: str, *, hint: str = "", min_delay_s: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.min_delay_s = min_delay_s


class LinkDownError(UplinkError):
    """No answer, or an answer that asks to try again later."""


class UplinkPausedError(UplinkError):
    """The server refuses this kiosk as a whole: the queue is paused and probed slowly.

    Also a refusal of one event that nothing proves to be the server's: all events stay.
    `status` is that of the reply, None where there was none.
    """

    def __init__(
        self, message: str, *, hint: str = "", min_delay_s: float = 0.0, status: int | None = None
    ) -> None:
        super().__init__(message, hint=hint, min_delay_s=min_delay_s)
        self.status = status


class BareRefusalError(UplinkPausedError):
    """A refusal of one event that carried no signature, by a status and nothing else."""


class ControlError(KioskError):
    """The running daemon could not be asked, or did not answer as agreed."""
