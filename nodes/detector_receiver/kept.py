"""A configuration that was changed while the receiver ran, kept for its next start.

It holds as long as the site file describes the same detector and ports as when it was changed: who edits the site
file means that one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from twisted.logger import Logger

from sisockdaq.detector.configuration import Addresses, changed, to_config
from sisockdaq.detector.description import DetectorOptions
from sisockdaq.errors import ConfigurationError, StorageError

__all__ = ["KeptConfiguration"]

_log = Logger("sisockdaq.detector_receiver")


class KeptConfiguration:
    """What `set_config` has changed, in a file.

    Parameters
    ----------
    path : Path
    detector : DetectorOptions
        As the site file describes it.
    addresses : list of (str, int)
        As the site file lists them.
    """

    def __init__(self, path: Path, detector: DetectorOptions, addresses: Addresses) -> None:
        self._path = path
        self._detector, self._addresses = detector, addresses
        described = [detector.model_dump(mode="json"), addresses]
        self._origin = hashlib.sha256(json.dumps(described).encode()).hexdigest()

    def load(self) -> tuple[DetectorOptions, Addresses]:
        """Return detector and addresses as they were changed last, or as the site file has them."""
        try:
            kept: dict[str, Any] = json.loads(self._path.read_text())
            if kept["origin"] != self._origin:
                _log.info("the site file has changed: what was configured before ({path}) is left", path=self._path)
                return self._detector, self._addresses
            return changed(self._detector, self._addresses, kept["config"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, ConfigurationError) as error:
            _log.warn("the kept configuration {path} is not used: {error}", path=self._path, error=error)
        return self._detector, self._addresses

    def save(self, detector: DetectorOptions, addresses: Addresses) -> None:
        """Keep a configuration.

        Raises
        ------
        StorageError
        """
        text = json.dumps({"origin": self._origin, "config": to_config(detector, addresses)}, indent=1)
        temporary = self._path.with_suffix(".part")
        try:
            temporary.write_text(text)
            temporary.replace(self._path)
        except OSError as error:
            raise StorageError(f"the configuration cannot be kept in {self._path}: {error.strerror}") from None
