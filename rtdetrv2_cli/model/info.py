"""What is known of a model beside its network. Knows no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Where a model comes from and how it wants to be used."""

    name: str
    sha256: str
    """Of the weight file; empty for a model that was never in one."""
    license: str | None = None
    confidence: float | None = None
    """Score that its makers recommend as the threshold."""
