"""Map the top-level rooms (``nodes/``, ``hub/``, ``gateways/``) to sub-packages of ``sisockdaq``.

Everything else stands in ``pyproject.toml``. The mapping keeps the repository flat to read while nothing generic
lands in site-packages.
"""

from setuptools import find_packages, setup

ROOMS = {"sisockdaq.nodes": "nodes", "sisockdaq.hub": "hub", "sisockdaq.gateways": "gateways"}

packages = find_packages(include=["sisockdaq", "sisockdaq.*"])
for package, folder in ROOMS.items():
    packages.append(package)
    packages.extend(f"{package}.{name}" for name in find_packages(folder))

setup(packages=packages, package_dir=ROOMS)
