"""The machine that figures belong to."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("rtdetrv2", "torch", "numpy", "av", "opencv-python-headless", "supervision")


def environment() -> dict[str, object]:
    """Processor, system and versions."""
    return {
        "processor": _processor(),
        "cores": available_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def available_cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor(path: Path = Path("/proc/cpuinfo")) -> str:
    try:
        named = re.search(r"^model name\s*: (.+)$", path.read_text(), re.MULTILINE)
    except OSError:
        named = None
    return named[1] if named else platform.processor() or platform.machine()
