"""Fixtures of networks."""

from collections.abc import Callable
from dataclasses import replace

import calibrated
import pytest
import torch
from torch import Tensor, nn

from rtdetrv2_cli.model.checkpoint import official_to_transformers


@pytest.fixture(scope="session")
def picture() -> Callable[..., Tensor]:
    """Makes pictures [b, 3, h, w] in 0..1 with structure at every scale, as photographs have."""
    return calibrated.picture


@pytest.fixture(scope="session")
def randomise() -> Callable[..., nn.Module]:
    """Gives a network random weights everywhere, norms, heads and sampling offsets included.

    The norms' statistics are those of a picture, so that activations stay around one.
    """
    return calibrated.randomise


@pytest.fixture(scope="session")
def aligned() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Compares two answers query by query, whatever order top-k left the queries in."""
    return calibrated.aligned


@pytest.fixture(scope="session")
def objects() -> Callable[..., dict[str, Tensor]]:
    """Makes one picture's labels: a number of objects of random class and place."""
    return _objects


@pytest.fixture(scope="session")
def transformers_twin() -> Callable[[nn.Module], nn.Module]:
    """Makes the same network, with the same weights, in transformers."""
    pytest.importorskip("transformers")
    return _transformers_twin


def _objects(count: int, *, num_labels: int = 3, seed: int = 0) -> dict[str, Tensor]:
    """Boxes lie within the picture and are sums of few powers of two, thus exact everywhere."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randint(77, 180, (count, 2), generator=generator) / 256
    sizes = torch.randint(20, 150, (count, 2), generator=generator) / 256
    class_ids = torch.randint(num_labels, (count,), generator=generator)
    return {"class_labels": class_ids, "boxes": torch.cat([centres, sizes], dim=1)}


def _transformers_twin(model: nn.Module) -> nn.Module:
    """Its norms in the backbone are frozen, and it does not look forward twice.

    Eager attention: with fused attention transformers adds float32 masks to float64 values.
    """
    import transformers

    config = transformers.RTDetrV2Config(
        **replace(model.config, freeze_backbone_batch_norms=True).to_dict()
    )
    twin, found = transformers.RTDetrV2ForObjectDetection.from_pretrained(
        None,
        config=config,
        state_dict=official_to_transformers(model.model.state_dict()),
        attn_implementation="eager",
        output_loading_info=True,
    )
    assert not any(found.values()), found  # nothing missing, unexpected or of another shape
    return twin.eval()
