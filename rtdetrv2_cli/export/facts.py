"""What an exported file says of its model, beside the network."""

import json
from importlib.metadata import version

from rtdetrv2_cli.model.checkpoint import LoadedModel
from rtdetrv2_cli.types import Size


def facts(loaded: LoadedModel, size: Size) -> dict[str, str]:
    """Name, classes (a JSON list), input size (height x width), threshold, licence and digest.

    The digest is that of the weight file; what is not known is left out.
    """
    info = loaded.info
    known = {
        "name": info.name,
        "classes": json.dumps(loaded.model.config.labels, ensure_ascii=False),
        "size": f"{size.height}x{size.width}",
        "confidence": None if info.confidence is None else str(info.confidence),
        "license": info.license,
        "sha256": info.sha256,
        "tool": f"rtdetrv2 {version('rtdetrv2')}",
    }
    return {key: value for key, value in known.items() if value}
