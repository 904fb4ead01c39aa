"""Map the top-level rooms (``nodes/``, ``hub/``, ``gateways/``) to sub-packages of ``sisockdaq``.

Everything else stands in ``pyproject.toml``. The mapping keeps the repository flat to read while nothing generic
lands in site-packages. ``crossbar/`` holds no code of ours to import: it is
installed as the data package of the router's template.
"""

from setuptools import find_packages, setup

ROOMS = {"sisockdaq.nodes": "nodes", "sisockdaq.hub": "hub", "sisockdaq.gateways": "gateways"}
TEMPLATE = {"sisockdaq.router_template": "crossbar"}

packages = find_packages(include=["sisockdaq", "sisockdaq.*"])
for package, folder in ROOMS.items():
    packages.append(package)
    packages.extend(f"{package}.{name}" for name in find_packages(folder))
packages.extend(TEMPLATE)

setup(
    packages=packages,
    package_dir={**ROOMS, **TEMPLATE},
    package_data={
        **{package: ["*.json", "sitecustomize.py"] for package in TEMPLATE},
        "sisockdaq.nodes.weather": ["sample/*.dat"],
        "sisockdaq.gateways.grafana": ["provisioning/d*/*.*", "provisioning/dashboards/sisockdaq/*.json"],
    },
)
