"""The simulated detector is the one that is configured now."""

from __future__ import annotations

from pathlib import Path

from sisockdaq.gateways.std_daq.simulation import as_configured

from sisockdaq.detector.configuration import changed, to_config
from sisockdaq.site import load_site

SITE = """\
site: s
detector: {model: jungfrau, modules: 2, readout_rows: 64}
nodes:
  receiver: {type: detector_receiver, udp: [{port: 50000}, {port: 50001}]}
"""


def test_a_changed_configuration_reaches_the_simulator(tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text(SITE)
    site = load_site(tmp_path)
    assert site.detector is not None
    addresses = [("127.0.0.1", 50000), ("127.0.0.1", 50001)]
    plain = {**to_config(site.detector, addresses), "writer_user_id": -1}
    assert as_configured(site, "receiver", plain) == []
    flipped = {"0": [0, 127, 1023, 64], "1": [0, 63, 1023, 0]}
    wanted = {**plain, "start_udp_port": 50010, "module_positions": flipped}
    arguments = as_configured(site, "receiver", wanted)
    again = load_site(tmp_path, overrides=arguments[1::2])
    detector, ports = changed(site.detector, addresses, {"start_udp_port": 50010, "module_positions": flipped})
    assert again.detector is not None
    assert again.detector.positions == detector.positions
    assert [entry["port"] for entry in again.nodes["receiver"].options["udp"]] == [port for _, port in ports]
