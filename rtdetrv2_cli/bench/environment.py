"""The machine that figures belong to."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from rtdetrv2_cli.machine import available_cores, processor

_PACKAGES: Final = ("rtdetrv2", "torch", "numpy", "av", "opencv-python-headless", "supervision")
_BESIDE: Final = (
    "pillow", "openvino", "onnxruntime", "transformers", "ultralytics", "libreyolo",
)  # fmt: skip
"""Those that are compared with, where they are installed."""


def environment(*, beside: bool = False) -> dict[str, object]:
    """Processor, system and versions, of what is compared with, too, if that is asked for."""
    packages = {name: version(name) for name in _PACKAGES}
    for name in _BESIDE if beside else ():
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": processor(),
        "cores": available_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": packages,
    }
