"""What `rtdetrv2 probe --list-devices` finds on this machine, and how it is shown."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.media.cameras import Camera, list_cameras
from rtdetrv2_cli.media.encoders import usable_codecs


@dataclass(frozen=True, slots=True)
class Devices:
    """What a run on this machine can use."""

    cameras: Sequence[Camera]
    compute: Sequence[tuple[str, str | None]]
    """Name for `--device`, and what the hardware calls itself; the one that `auto` takes first."""
    encoders: Sequence[tuple[str, str]]
    """Codec for `--vcodec`, and an encoder of it that opens."""

    def content(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "cameras": [asdict(camera) for camera in self.cameras],
            "compute": [{"name": name, "hardware": hardware} for name, hardware in self.compute],
            "encoders": [{"codec": codec, "encoder": encoder} for codec, encoder in self.encoders],
        }

    def show(self) -> None:
        """Prints a table.

        Raises:
            OutputError: whoever reads has gone.
        """
        cameras = [("camera", str(camera.path), _words(camera)) for camera in self.cameras]
        console.print_rows(
            [
                *(cameras or [("camera", "none", "")]),
                *(("compute", name, hardware or "") for name, hardware in self.compute),
                *(("encoder", codec, encoder) for codec, encoder in self.encoders),
            ]
        )


def find() -> Devices:
    """Asks the system for cameras, PyTorch for devices, and opens each video encoder once."""
    from rtdetrv2_cli.infer.torch_engine import describe_devices  # 1.9 s: torch

    encoders = list(usable_codecs().items())
    return Devices(list_cameras(), list(describe_devices().items()), encoders)


def _words(camera: Camera) -> str:
    words = [console.printable(camera.name or "unnamed")]
    words += (
        [f"further device {camera.index} of a camera, often without pictures"]
        if camera.index
        else []
    )
    words += (
        []
        if camera.accessible
        else ["cannot be opened: it is gone, or this user lacks the group 'video'"]
    )
    return ", ".join(words)
