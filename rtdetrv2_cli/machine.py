"""The machine this runs on: its processor, and how much of it is ours."""

import math
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

_NVIDIA = ("dev/nvidiactl", "usr/lib/wsl/lib/libcuda.so.1")
_DRIVERS = {"rocm": ("dev/kfd",), "xpu": ("dev/dri",)}
"""What shows on Linux that there is hardware, by what PyTorch was built for; else NVIDIA's."""

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
"""What x86, and the last ARM, call arithmetic in bf16; without it a CPU emulates it, slower than
float32."""

_granted_here: int | None = None
"""Cores that whoever has started this process has left to it; None: all."""


def limit_cores(cores: int) -> None:
    """Lets this process take no more than so many for its own: others beside it have theirs."""
    global _granted_here
    _granted_here = cores


def available_cores(
    groups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int:
    """Cores that this process may use, at least one.

    The smallest of the cores it may run on, what `limit_cores` has set and, as containers have it,
    the processor time that its control groups grant, rounded up.

    Args:
        groups: Where Linux shows its control groups, version 1 or 2.
        membership: Where it tells which of them this process is in.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    cores = cores if _granted_here is None else min(cores, _granted_here)
    return max(1, min([cores, *map(math.ceil, _granted(groups, membership))]))


def _granted(groups: Path, membership: Path) -> Iterator[float]:
    """Cores' worth of time in each control group above this process that has a limit."""
    for line in _text(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = groups / "cpu" if controllers else groups
        own = top / path.lstrip("/")
        for folder in (own, *own.parents):
            limit = _text(folder / "cpu.max").split() or [
                *_text(folder / "cpu.cfs_quota_us").split(),
                *_text(folder / "cpu.cfs_period_us").split(),
            ]
            if len(limit) == 2 and all(number.isdecimal() for number in limit):
                yield int(limit[0]) / int(limit[1])
            if folder == top:
                break


def may_have_accelerator(root: Path = Path("/")) -> bool:
    """Whether PyTorch as it is installed may find more than the CPU; loads nothing.

    Where there is a driver only PyTorch can tell what it is good for.
    """
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    built_for = version("torch").partition("+")[2]
    if built_for == "cpu":
        return False
    if sys.platform == "win32":
        return shutil.which("nvcuda.dll") is not None or built_for == "xpu"
    drivers = _DRIVERS.get("".join(filter(str.isalpha, built_for)), _NVIDIA)
    return any((root / driver).exists() for driver in drivers)


def emulates_bf16(path: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU says that it has no instructions for bf16; where none says so, it may."""
    flags = re.search(r"^(?:flags|Features)\s*: (.+)$", _text(path), re.MULTILINE)
    return flags is not None and not {*BF16_INSTRUCTIONS} & {*flags[1].split()}


def processor(path: Path = Path("/proc/cpuinfo")) -> str:
    """What the processor calls itself."""
    named = re.search(r"^model name\s*: (.+)$", _text(path), re.MULTILINE)
    return named[1] if named else platform.processor() or platform.machine()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
