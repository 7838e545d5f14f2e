"""The machine that figures belong to."""

import platform
from importlib.metadata import version
from typing import Final

from rtdetrv2_cli.machine import available_cores, processor

_PACKAGES: Final = ("rtdetrv2", "torch", "numpy", "av", "opencv-python-headless", "supervision")


def environment() -> dict[str, object]:
    """Processor, system and versions."""
    return {
        "processor": processor(),
        "cores": available_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }
