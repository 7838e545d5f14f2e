"""Any backbone of the optional package timm. Knows no detector."""

from typing import Any

from torch import nn

from rtdetrv2_cli.errors import ModelError
from rtdetrv2_cli.model.config import TimmConfig
from rtdetrv2_cli.model.layers import FrozenBatchNorm


def timm_backbone(config: TimmConfig, *, frozen_norms: bool) -> tuple[nn.Module, tuple[int, ...]]:
    """A timm network, [b, 3, H, W] -> maps at strides 8, 16 and 32, and the widths of the maps.

    Its weights are random and keep timm's names: checkpoints and training fill them.

    Args:
        config: timm's name of the network, and which of its maps to use.
        frozen_norms: Replace batch norms by ones that never train, exactly as transformers does:
            of timm's norms with an activation inside only the norm stays, and epsilon is 1e-5.

    Raises:
        ModelError: timm is missing, has no such network, or its maps do not fit.
    """
    net = _features_of(config)
    strides = net.feature_info.reduction()
    if list(strides) != [8, 16, 32] or getattr(net, "output_fmt", "NCHW") != "NCHW":
        raise ModelError(
            f"timm's {config.backbone} gives maps {config.out_indices} at strides {strides}: "
            "out_indices must choose strides 8, 16 and 32, and the maps must be channels first"
        )
    if frozen_norms:
        _freeze_norms(net)
    return net, tuple(net.feature_info.channels())


def _features_of(config: TimmConfig) -> Any:
    try:
        import timm
    except ImportError as error:
        raise ModelError(
            f"the backbone {config.backbone} needs timm: pip install 'rtdetrv2[timm]'"
        ) from error
    if not timm.is_model(config.backbone):
        raise ModelError(f"timm {timm.__version__} has no network named {config.backbone!r}")
    try:
        return timm.create_model(
            config.backbone, features_only=True, out_indices=config.out_indices
        )
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        raise ModelError(
            f"timm's {config.backbone} gives no maps {config.out_indices}: {error}"
        ) from error


def _freeze_norms(parent: nn.Module) -> None:
    for name, child in parent.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm(child.num_features)
            frozen.load_state_dict(child.state_dict(), strict=False)
            setattr(parent, name, frozen)
        else:
            _freeze_norms(child)
