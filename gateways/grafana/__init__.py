"""The gateway to Grafana and Prometheus: any field of the network, live and archived, in a panel.

`pages` is the HTTP that dashboards speak; `questions`, `targets`, `times`, `listings`, `replies` and `annotations` are
pure and turn requests into questions and samples into replies; `asking` asks the nodes; `metrics` is for Prometheus.
"""

from __future__ import annotations

from pathlib import Path

from sisockdaq.gateways.grafana.node import Grafana

__all__ = ["PROVISIONING", "Grafana"]

PROVISIONING = Path(__file__).with_name("provisioning")
"""What Grafana reads when it starts: data sources and dashboards."""
