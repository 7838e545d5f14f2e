"""A model's weights on this machine, downloaded if they have to be. Knows no option."""

from rtdetrv2_cli import hub
from rtdetrv2_cli.cli import console


def fetch(model: str, *, offline: bool, shows_progress: bool) -> None:
    """Makes sure that the model is on this machine.

    Raises:
        ModelError: no such model, or it cannot be fetched.
    """
    if hub.find(model) is not None:
        return
    with console.download_bar(shown=shows_progress) as progress:
        got = hub.pull(model, offline=offline, progress=progress)
    console.log.info(
        "downloaded %s: %.1f MB, licence %s, SHA-256 %s",
        got.path.name,
        got.bytes / 1e6,
        got.license or "unknown",
        got.sha256,
        extra=console.facts(path=got.path, bytes=got.bytes, sha256=got.sha256, license=got.license),
    )
