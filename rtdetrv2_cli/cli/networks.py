"""What the commands of `bench` share: lists, and networks without trained weights."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtdetrv2_cli.model.checkpoint import LoadedModel


def listed(text: str) -> list[str]:
    """What stands between commas, each once."""
    return [*dict.fromkeys(filter(None, (each.strip() for each in text.split(","))))]


def untrained_model(name: str) -> "LoadedModel":
    """A published network with random weights.

    Raises:
        ModelError: no such network.
    """
    from rtdetrv2_cli import hub
    from rtdetrv2_cli.model.checkpoint import LoadedModel
    from rtdetrv2_cli.model.config import RtDetrV2Config
    from rtdetrv2_cli.model.info import ModelInfo
    from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection

    config = RtDetrV2Config.from_preset(hub.canonical_name(name) or name)
    return LoadedModel(RtDetrV2ForObjectDetection(config).eval(), ModelInfo(name, ""))
