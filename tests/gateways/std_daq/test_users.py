"""Whose the files are where the writer is not root: a real process of another user, asked by the real client."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sisockdaq.nodes.file_writer import FileWriter
from std_daq_client import StdDaqAdminException, StdDaqClient

from sisockdaq._wamp.reactor import in_reactor
from sisockdaq.errors import SisockdaqError
from sisockdaq.frames import bitplanes
from sisockdaq.testing import Network, wait_until
from tests.gateways.std_daq.rig import FakeReceiver, run_gateway
from tests.nexus.rig import Sources

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may run a writer as another user")

NOBODY = pwd.getpwnam("nobody")
SOMEBODY = NOBODY.pw_uid - 1


class NobodysWriter(FileWriter):
    """A file writer whose process has given up being root, for good, before it does anything."""

    def __init__(self, config: Any = None) -> None:
        bitplanes.warm_up()  # the interpreter's own modules may lie where nobody reaches them
        os.setgroups([])
        os.setgid(NOBODY.pw_gid)
        os.setuid(NOBODY.pw_uid)
        super().__init__(config)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of nobody's, with a path that is short enough for sockets."""
    made = Path(tempfile.mkdtemp(prefix="sisockdaq-"))
    shutil.chown(made, NOBODY.pw_uid, NOBODY.pw_gid)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def folder(place: Path) -> Path:
    """Where the files go."""
    made = place / "data"
    made.mkdir()
    shutil.chown(made, NOBODY.pw_uid, NOBODY.pw_gid)
    return made


@pytest.fixture
def client(place: Path, folder: Path) -> Iterator[StdDaqClient]:
    with Network(place / "state") as network:
        network.state.make()
        sources = Sources(network.state.frames_socket("receiver"), None)
        network.start(FakeReceiver, name="receiver")
        for each in (network.state.path, *network.state.path.rglob("*")):
            shutil.chown(each, NOBODY.pw_uid, NOBODY.pw_gid)
        options = {"directory": str(folder), "frames": "receiver", "results": []}
        network.start_process(NobodysWriter, name="writer", wait=False, **options)
        wait_until(lambda: attached(network), 80, "the writer to have its source")  # it imports and compiles, too
        host = run_gateway(network, "std_daq", writer="writer", receiver="receiver")
        yield StdDaqClient(url_base=f"http://127.0.0.1:{host.gateway.port}")  # type: ignore[attr-defined]
        in_reactor(host.stop)
        network.stop_nodes()
        sources.close()


def attached(network: Network) -> bool:
    with suppress(SisockdaqError):
        return bool(network.call("control.writer.status", user="control").get("source"))
    return False


def test_a_writer_that_is_not_root_refuses_other_users_and_writes_as_its_own(
    client: StdDaqClient, folder: Path
) -> None:
    config = client.get_config()
    reason = f"the writer runs as user {NOBODY.pw_uid} and may not write as user {SOMEBODY}"
    with pytest.raises(StdDaqAdminException, match=reason):
        client.set_config({"writer_user_id": SOMEBODY})
    assert client.get_config() == config
    assert client.get_status()["state"] == "READY"
    path = folder / "run.h5"
    # Its own user may be named.
    assert client.set_config({"writer_user_id": NOBODY.pw_uid})["writer_user_id"] == NOBODY.pw_uid
    ended = client.start_writer_sync({"output_file": str(path), "n_images": 12})
    assert ended["acquisition"]["message"] == "Completed."
    made = sorted(folder.iterdir())
    assert [each.name for each in made] == ["run.h5", "run_data_000001.h5"]
    assert {(each.stat().st_uid, each.stat().st_gid) for each in made} == {(NOBODY.pw_uid, NOBODY.pw_gid)}
