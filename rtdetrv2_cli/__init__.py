"""RT-DETRv2 object detection for pictures, videos and streams.

Every name below is imported at its first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtdetrv2_cli.infer.detector import Detector
    from rtdetrv2_cli.media.sink import open_sink
    from rtdetrv2_cli.media.source import open_source
    from rtdetrv2_cli.model.config import RtDetrV2Config
    from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection, RtDetrV2Model
    from rtdetrv2_cli.pipeline import run

    __version__: str

__all__ = [
    "Detector",
    "RtDetrV2Config",
    "RtDetrV2ForObjectDetection",
    "RtDetrV2Model",
    "__version__",
    "open_sink",
    "open_source",
    "run",
]

_HOMES = {
    "Detector": "infer.detector",
    "RtDetrV2Config": "model.config",
    "RtDetrV2ForObjectDetection": "model.rtdetr",
    "RtDetrV2Model": "model.rtdetr",
    "open_sink": "media.sink",
    "open_source": "media.source",
    "run": "pipeline",
}


if not TYPE_CHECKING:  # with it, every name that is misspelt would be one for type checkers

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            value: object = version("rtdetrv2")
        elif name in _HOMES:
            value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
