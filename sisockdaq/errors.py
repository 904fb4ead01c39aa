"""One exception tree for everything a person or a caller can get wrong, each class with a stable error URI.

A message names the thing, the reason and, as ``remedy``, the next step. Over WAMP an error travels as its URI with
the message as first argument (``to_wamp`` / ``from_wamp``), so a remote caller sees the same text as a local one.
Programming mistakes are not in this tree: they keep their Python types and their tracebacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

__all__ = [
    "AcquisitionRefused",
    "AuthenticationFailed",
    "ConfigurationError",
    "ConnectionFailed",
    "DeadlineExceeded",
    "FieldUnknown",
    "FileUnreadable",
    "FrameSourceError",
    "GeometryError",
    "IntervalError",
    "MaskError",
    "NameTaken",
    "NodeNotFound",
    "NotAuthorized",
    "PortTaken",
    "ReplyInvalid",
    "SisockdaqError",
    "StorageError",
    "from_wamp",
]


class SisockdaqError(Exception):
    """Base of all errors that are meant to be read by a person.

    Parameters
    ----------
    message : str
        What is wrong with which thing, and why.
    remedy : str, optional
        What to do next; shown after the message.
    """

    uri: ClassVar[str] = "sisockdaq.error.general"

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}   → {self.remedy}" if self.remedy else self.message

    def to_wamp(self) -> tuple[str, list[Any], dict[str, Any]]:
        """Return ``(uri, args, kwargs)`` of the WAMP error that carries this one."""
        return self.uri, [self.message], {"remedy": self.remedy}


class ConfigurationError(SisockdaqError):
    """A site file, an option or a command-line argument is wrong; ``problems`` holds each mistake as one line."""

    uri = "sisockdaq.error.configuration"

    def __init__(self, message: str, *, remedy: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__(message, remedy=remedy)
        self.problems = list(problems) or [message]


class ConnectionFailed(SisockdaqError):
    """The router cannot be reached, or the connection was lost for longer than the caller would wait."""

    uri = "sisockdaq.error.connection"


class AuthenticationFailed(SisockdaqError):
    """The router refused the user or the secret."""

    uri = "sisockdaq.error.authentication"


class NotAuthorized(SisockdaqError):
    """The role of this user does not include the call."""

    uri = "sisockdaq.error.not_authorized"


class NodeNotFound(SisockdaqError):
    """No node of that name is on the network."""

    uri = "sisockdaq.error.node_not_found"


class NameTaken(SisockdaqError):
    """Another node holds that name."""

    uri = "sisockdaq.error.name_taken"


class FieldUnknown(SisockdaqError):
    """The node has no field of that name."""

    uri = "sisockdaq.error.field_unknown"


class IntervalError(SisockdaqError):
    """A time span is reversed, empty or not made of finite numbers."""

    uri = "sisockdaq.error.interval"


class DeadlineExceeded(SisockdaqError):
    """An answer did not come in the time that was allowed for it."""

    uri = "sisockdaq.error.deadline"


class ReplyInvalid(SisockdaqError):
    """A node's reply does not follow the contract."""

    uri = "sisockdaq.error.reply_invalid"


class AcquisitionRefused(SisockdaqError):
    """An acquisition cannot start or be changed; ``reasons`` holds every obstacle, each with its remedy."""

    uri = "sisockdaq.error.acquisition_refused"

    def __init__(self, message: str, *, remedy: str = "", reasons: Sequence[str] = ()) -> None:
        super().__init__(message, remedy=remedy)
        self.reasons = list(reasons) or [message]

    def to_wamp(self) -> tuple[str, list[Any], dict[str, Any]]:
        """Return the WAMP form; the reasons travel as the keyword ``reasons``."""
        return self.uri, [self.message], {"remedy": self.remedy, "reasons": self.reasons}


class FrameSourceError(SisockdaqError):
    """A source of frames cannot be reached, or does not send what was expected."""

    uri = "sisockdaq.error.frame_source"


class GeometryError(SisockdaqError):
    """A detector geometry is impossible, unreadable or belongs to another image shape."""

    uri = "sisockdaq.error.geometry"


class MaskError(SisockdaqError):
    """A mask is missing, unreadable or of another shape than the image."""

    uri = "sisockdaq.error.mask"


class FileUnreadable(SisockdaqError):
    """A data file is missing, broken, or still growing."""

    uri = "sisockdaq.error.file_unreadable"


class StorageError(SisockdaqError):
    """Data cannot be written: the disk is full, the folder is missing or not writable."""

    uri = "sisockdaq.error.storage"


class PortTaken(SisockdaqError):
    """A network port that this process needs is in use."""

    uri = "sisockdaq.error.port_taken"


def _tree(root: type[SisockdaqError]) -> Iterator[type[SisockdaqError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def from_wamp(uri: str, args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> SisockdaqError:
    """Rebuild the error that another process raised.

    An unknown URI becomes a plain `SisockdaqError` whose message begins with the URI.
    """
    details = dict(kwargs or {})
    text = str(args[0]) if args else ""
    for kind in _tree(SisockdaqError):
        if kind.uri == uri:
            error = kind(text, remedy=str(details.get("remedy", "")))
            if isinstance(error, AcquisitionRefused) and details.get("reasons"):
                error.reasons = [str(reason) for reason in details["reasons"]]
            return error
    return SisockdaqError(f"{uri}: {text}" if text else uri)
