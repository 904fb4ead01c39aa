"""The ledger of an acquisition: what was expected at each step, what came, and where the rest was lost.

It is put together from three parts: the source's counts of packets and frames (`End.counts`), what the source counted
for each consumer it served, and what each consumer reported of its own work. Promises: every frame that was published
appears once for every consumer; `Ledger.balance` names each sum that does not come out.

No clock, no socket: sources and consumers feed it, the page, the file and the command line show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

__all__ = ["REASONS_DROPPED", "ConsumerPart", "Ledger"]

_MAY_BE_UNKNOWN = ("frames_published", "packets_recorded", "frames_recorded")

REASONS_DROPPED = ("ring_full", "no_packet", "policy")
"""Why a source may drop a frame: no free slot; no packet of it came; the site wants no partial frames."""


@dataclass(slots=True)
class ConsumerPart:
    """One consumer's share of the published frames, counted at the source.

    Attributes
    ----------
    policy : str
        ``lossless``, ``latest`` or ``every: n``.
    state : str
        ``attached`` when the ledger was closed; ``gone``: it died or left; ``evicted``: thrown out because it hung;
        ``absent``: announced for the acquisition, but never there.
    taken : int
        Frames it released as used.
    dropped : int
        Frames offered to it that it did not use.
    skipped : int
        Frames left out by ``every: n``.
    missed : int
        Frames published while it was not attached.
    held : int
        Frames it had not released when the ledger was closed.
    counts : dict
        Its own `Report`, for example ``frames_written``.
    """

    policy: str
    state: str = "attached"
    taken: int = 0
    dropped: int = 0
    skipped: int = 0
    missed: int = 0
    held: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All frames this part accounts for."""
        return self.taken + self.dropped + self.skipped + self.missed + self.held


@dataclass(slots=True)
class Ledger:
    """The sums of one acquisition.

    ``packets_received`` counts each packet once (no duplicates) and includes packets of frames that were dropped for
    a full ring. ``frames_published`` is what the source handed to the frame plane; None where it is not known.
    ``packets_recorded`` and ``frames_recorded`` count raw packets of the acquisition's frames in a recording of its
    own, duplicates and late ones included, and the frames that they belong to; None where none was asked for.
    """

    acquisition: str
    reason: str = ""
    packets_expected: int = 0
    packets_received: int = 0
    packets_lost: int = 0
    packets_late: int = 0
    packets_duplicate: int = 0
    packets_invalid: dict[str, int] = field(default_factory=dict)
    frames_expected: int = 0
    frames_complete: int = 0
    frames_partial: int = 0
    frames_dropped: dict[str, int] = field(default_factory=dict)
    frames_published: int | None = None
    packets_recorded: int | None = None
    frames_recorded: int | None = None
    consumers: dict[str, ConsumerPart] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Ledger:
        """Rebuild what `to_dict` made; `End.counts` may be read the same way. Unknown keys are passed over.

        Raises
        ------
        ValueError
            When a count is not a whole number.
        """
        known = {item.name for item in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in data.items():
            if key == "consumers":
                values[key] = {str(name): _consumer_part(name, part) for name, part in value.items()}
            elif key in ("packets_invalid", "frames_dropped"):
                values[key] = {str(kind): _count(f"{key}[{kind}]", number) for kind, number in value.items()}
            elif key in ("acquisition", "reason"):
                values[key] = str(value)
            elif key in known:
                values[key] = None if value is None and key in _MAY_BE_UNKNOWN else _count(key, value)
        values.setdefault("acquisition", "")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, numbers and strings, fit for JSON."""
        return asdict(self)

    @property
    def dropped(self) -> int:
        """Frames that the source dropped, for any reason."""
        return sum(self.frames_dropped.values())

    def reported(self, counter: str) -> int:
        """Return the sum over all consumers of a counter they reported, for example ``frames_written``."""
        return sum(part.counts.get(counter, 0) for part in self.consumers.values())

    def merge(self, other: Ledger) -> Ledger:
        """Return both ledgers of one acquisition as one.

        The source's part comes from the ledger that has one (from `other` when both do); of a consumer that is in
        both, `other`'s part stands, with the reports of both.

        Raises
        ------
        ValueError
            When they belong to different acquisitions.
        """
        if self.acquisition != other.acquisition:
            raise ValueError(f'ledgers of "{self.acquisition}" and "{other.acquisition}" cannot be merged')
        source = other if other._has_source() else self
        merged = Ledger.from_dict(source.to_dict())
        merged.consumers = Ledger.from_dict(self.to_dict()).consumers
        for name, part in Ledger.from_dict(other.to_dict()).consumers.items():
            before = merged.consumers.get(name)
            part.counts = {**(before.counts if before else {}), **part.counts}
            merged.consumers[name] = part
        return merged

    def balance(self) -> list[str]:
        """Return each sum that does not come out, in words; an empty list when all do."""
        problems = []
        if self.packets_expected != self.packets_received + self.packets_lost:
            problems.append(
                f"{self.packets_expected} packets expected, but {self.packets_received} received"
                f" + {self.packets_lost} lost = {self.packets_received + self.packets_lost}"
            )
        frames = self.frames_complete + self.frames_partial + self.dropped
        if self.frames_expected != frames:
            problems.append(
                f"{self.frames_expected} frames expected, but {self.frames_complete} complete"
                f" + {self.frames_partial} partial + {self.dropped} dropped = {frames}"
            )
        if self._has_source() and self.frames_published not in (None, self.frames_complete + self.frames_partial):
            problems.append(
                f"{self.frames_published} frames published, but {self.frames_complete} complete"
                f" + {self.frames_partial} partial"
            )
        if self.packets_recorded is not None and self.packets_recorded < self.packets_received:
            problems.append(f"{self.packets_received} packets received, but {self.packets_recorded} recorded")
        published = self._published()
        for name, part in self.consumers.items():
            problems += _consumer_problems(name, part, published)
        return problems

    def summary(self) -> str:
        """Return the ledger as one line for people."""
        parts = []
        if self.packets_expected or self.packets_received:
            parts.append(self._packets_summary())
        frames = f"{self.frames_complete} complete + {self.frames_partial} partial"
        if self.dropped:
            frames += f" + {self.dropped} dropped ({_kinds(self.frames_dropped)})"
        parts.append(f"{frames} = {self.frames_expected} frames" if self.frames_expected else frames)
        if self.packets_recorded is not None:
            parts.append(f"{self.packets_recorded} packets of {self.frames_recorded or 0} frames recorded")
        parts += [_consumer_summary(name, part) for name, part in self.consumers.items()]
        problems = self.balance()
        parts.append("balanced" if not problems else "NOT BALANCED: " + ", ".join(problems))
        return "; ".join(parts)

    def _packets_summary(self) -> str:
        text = f"{self.packets_expected} packets = {self.packets_received} received + {self.packets_lost} lost"
        also = {"late": self.packets_late, "duplicate": self.packets_duplicate, **self.packets_invalid}
        return f"{text} (besides {_kinds(also)})" if any(also.values()) else text

    def _has_source(self) -> bool:
        return bool(self.frames_expected or self.packets_expected or self.frames_complete or self.frames_partial)

    def _published(self) -> int:
        return self.frames_complete + self.frames_partial if self.frames_published is None else self.frames_published


def _consumer_problems(name: str, part: ConsumerPart, published: int) -> list[str]:
    problems = []
    if part.total != published:
        problems.append(
            f"{published} frames published, but {name} has {part.taken} taken + {part.dropped} dropped"
            f" + {part.skipped} skipped + {part.missed} missed + {part.held} held = {part.total}"
        )
    # Only a lossless consumer knows for certain: another's slot may be taken back between its look and its release.
    problems += [
        f"{name} reports {count} {counter}, but took {part.taken}"
        for counter, count in part.counts.items()
        if part.policy == "lossless" and counter.startswith("frames_") and count > part.taken
    ]
    return problems


def _consumer_summary(name: str, part: ConsumerPart) -> str:
    if part.state == "absent":
        return f"{name} absent"
    text = f"{name} took {part.taken}"
    losses = {key: getattr(part, key) for key in ("dropped", "skipped", "missed", "held")}
    if any(losses.values()):
        text += f" ({_kinds(losses)})"
    if part.state != "attached":
        text += f" and is {part.state}"
    reported = [
        f"{count} {counter.removeprefix('frames_').replace('_', ' ')}" for counter, count in part.counts.items()
    ]
    return ", ".join([text, *reported])


def _kinds(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in counts.items() if count)


def _consumer_part(name: str, part: Mapping[str, Any]) -> ConsumerPart:
    numbers = ("taken", "dropped", "skipped", "missed", "held")
    return ConsumerPart(
        policy=str(part.get("policy", "lossless")),
        state=str(part.get("state", "attached")),
        counts={str(key): _count(f"{name}: {key}", value) for key, value in dict(part.get("counts", {})).items()},
        **{key: _count(f"{name}: {key}", part.get(key, 0)) for key in numbers},
    )


def _count(name: str, value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise ValueError(f"ledger: {name} must be a whole number, not {value!r}") from None
    if number != value or isinstance(value, bool):
        raise ValueError(f"ledger: {name} must be a whole number, not {value!r}")
    return number
