"""What `rtdetrv2 probe --list-devices` finds on this machine, and how it is shown."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.media.encoders import usable_codecs
from rtdetrv2_cli.media.hardware import device_refusal, devices
from rtdetrv2_cli.media.live.cameras import Camera, list_cameras


@dataclass(frozen=True, slots=True)
class Devices:
    """What a run on this machine can use."""

    cameras: Sequence[Camera]
    compute: Sequence[tuple[str, str | None]]
    """Name for `--device`, and what the hardware calls itself; the one that `auto` takes first."""
    decoders: Sequence[tuple[str, str | None]]
    """Kind for `--hwaccel`, and why it cannot be used; None where it can."""
    encoders: Sequence[tuple[str, str]]
    """Codec for `--vcodec`, and an encoder of it that opens."""

    def content(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "cameras": [asdict(camera) for camera in self.cameras],
            "compute": [{"name": name, "hardware": hardware} for name, hardware in self.compute],
            "decoders": [{"name": name, "problem": problem} for name, problem in self.decoders],
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
                *(("decoder", name, problem or "works") for name, problem in self.decoders),
                *(("encoder", codec, encoder) for codec, encoder in self.encoders),
            ]
        )


def find() -> Devices:
    """Asks the system for cameras, PyTorch for devices; opens each video encoder and decoder."""
    from rtdetrv2_cli.infer.torch_engine import describe_devices  # 1.9 s: torch

    encoders = list(usable_codecs().items())
    decoders = [(name, device_refusal(name)) for name in devices()]
    return Devices(list_cameras(), list(describe_devices().items()), decoders, encoders)


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
