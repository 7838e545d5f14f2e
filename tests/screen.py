"""A screen that nobody sees, and somebody at its keyboard."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import ImageGrab, features

SIZE = (800, 1280)
"""Height and width."""

_MISSING = [name for name in ("Xvfb", "xdotool") if shutil.which(name) is None]
_MISSING += [] if find_spec("_tkinter") else ["Tk"]
_MISSING += [] if features.check("xcb") else ["Pillow with XCB"]

needs_screen = pytest.mark.skipif(bool(_MISSING), reason=f"not here: {', '.join(_MISSING)}")


@contextmanager
def screen() -> Iterator[str]:
    """Starts one; gives its name."""
    command = ["Xvfb", "-displayfd", "1", "-nolisten", "tcp", "-noreset", "-screen", "0"]
    command += [f"{SIZE[1]}x{SIZE[0]}x24"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            # It says its number when it is ready, and nothing if it cannot be.
            yield f":{int(process.stdout.readline())}"
        finally:
            process.terminate()


def picture_of(display: str) -> np.ndarray:
    return np.asarray(ImageGrab.grab(xdisplay=display).convert("RGB"))


def has_window(display: str) -> bool:
    return bool(picture_of(display).any())


def press(display: str, *keys: str) -> None:
    """Presses keys where the pointer is; without a window manager the keyboard follows it."""
    command = ["xdotool", "mousemove", "200", "150", "key", "--delay", "30", *keys]
    subprocess.run(command, env={"DISPLAY": display, "PATH": "/usr/bin:/bin"}, check=True)
