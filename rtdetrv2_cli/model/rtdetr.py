"""RT-DETRv2 as one network: backbone, encoder, decoder. Knows no picture file and no video.

Source: RT-DETRv2 (arXiv 2407.17140) upon RT-DETR (arXiv 2304.08069).
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rtdetrv2_cli.model.config import (
    CSPNetConfig,
    HGNetV2Config,
    PResNetConfig,
    RtDetrV2Config,
    TimmConfig,
)
from rtdetrv2_cli.model.cspnet import CSPNet
from rtdetrv2_cli.model.decoder import Decoder
from rtdetrv2_cli.model.encoder import HybridEncoder
from rtdetrv2_cli.model.hgnetv2 import HGNetV2
from rtdetrv2_cli.model.presnet import PResNet
from rtdetrv2_cli.model.timm_backbone import timm_backbone


class RtDetrV2ModelOutput(NamedTuple):
    """What the network knows of a batch; boxes are cxcywh in 0..1, in float32 at least."""

    hidden_states: tuple[Tensor, ...]
    """[b, q, d] after each decoder layer that ran."""
    reference_boxes: tuple[Tensor, ...]
    """[b, q, 4] after each decoder layer that ran."""
    encoder_feature_maps: tuple[Tensor, ...]
    """[b, d, H/s, W/s] at the strides s = 8, 16, 32."""
    enc_topk_logits: Tensor
    """[b, q, c] class logits of the queries when they were selected."""
    enc_topk_boxes: Tensor
    """[b, q, 4] boxes of the queries when they were selected."""


class ObjectDetectionOutput(NamedTuple):
    """Answers for a batch; one query may be read as several classes."""

    logits: Tensor
    """[b, q, c] before the sigmoid, best selected query first."""
    pred_boxes: Tensor
    """[b, q, 4] cxcywh in 0..1 of the picture, in float32 at least."""
    loss: Tensor | None = None
    loss_dict: Mapping[str, Tensor] | None = None


class RtDetrV2Model(nn.Module):
    """Backbone, hybrid encoder and decoder; its `state_dict` has the official layout."""

    def __init__(self, config: RtDetrV2Config) -> None:
        super().__init__()
        self.config = config
        self.backbone, channels = _backbone(config)
        self.encoder = HybridEncoder(config, channels)
        self.decoder = Decoder(config)

    def forward(self, pixel_values: Tensor) -> RtDetrV2ModelOutput:
        """Finds objects.

        Args:
            pixel_values: [b, 3, H, W] RGB in 0..1; H and W are any multiples of 32.

        Raises:
            ValueError: H or W is no multiple of 32, or there are fewer positions than queries.
        """
        maps = self.encode(pixel_values)
        selection, steps = self.decoder(maps)  # [b, q, ...], one step for each layer that ran
        return RtDetrV2ModelOutput(
            hidden_states=tuple(step.hidden for step in steps),
            reference_boxes=tuple(step.boxes for step in steps),
            encoder_feature_maps=tuple(maps),
            enc_topk_logits=selection.class_logits,
            enc_topk_boxes=selection.box_logits.sigmoid(),
        )

    def encode(self, pixel_values: Tensor) -> list[Tensor]:
        """What the decoder looks at: [b, 3, H, W] -> maps [b, d, H/s, W/s], s = 8, 16, 32."""
        _check_size(pixel_values, self.config.num_queries)
        maps = self.backbone(pixel_values)  # 3 x [b, c, H/s, W/s]
        return self.encoder(maps)


class RtDetrV2ForObjectDetection(nn.Module):
    """The detector: classes and boxes of the evaluated decoder layer.

    It has no weights of its own; all are in `model`.
    """

    def __init__(self, config: RtDetrV2Config) -> None:
        super().__init__()
        self.config = config
        self.model = RtDetrV2Model(config)

    def forward(
        self, pixel_values: Tensor, labels: Sequence[Mapping[str, Tensor]] | None = None
    ) -> ObjectDetectionOutput:
        """Detects objects, and says how far off it is where the objects are known.

        Args:
            pixel_values: [b, 3, H, W] RGB in 0..1; H and W are any multiples of 32.
            labels: For each picture `class_labels` [n] and `boxes` [n, 4] cxcywh in 0..1, and if
                wanted `ignored` [k, 4], regions that count neither as right nor as wrong. With
                them all layers run, and `loss` and its weighted terms, `loss_dict`, are computed
                (`model/loss.py` names them); while training, noised queries learn as well.

        Raises:
            ValueError: H or W is no multiple of 32, there are fewer positions than queries, or a
                label makes no sense.
        """
        if labels is not None:
            return self._learn(pixel_values, labels)
        outputs = self.model(pixel_values)
        score_head = self.model.decoder.dec_score_head[self.config.evaluated_layers - 1]
        return ObjectDetectionOutput(
            logits=score_head(outputs.hidden_states[-1]),  # [b, q, c]
            pred_boxes=outputs.reference_boxes[-1],  # [b, q, 4]
        )

    def _learn(
        self, pixel_values: Tensor, labels: Sequence[Mapping[str, Tensor]]
    ) -> ObjectDetectionOutput:
        # scipy and what only training needs
        from rtdetrv2_cli.model import loss
        from rtdetrv2_cli.model.denoising import noised_queries
        from rtdetrv2_cli.model.targets import Targets

        if len(labels) != len(pixel_values):
            raise ValueError(f"{len(labels)} labels for {len(pixel_values)} pictures")
        if not labels:
            raise ValueError("a batch of no pictures has no loss")
        config = self.config
        targets = Targets.from_labels(labels, config.num_labels, device=pixel_values.device)
        noised = noised_queries(targets, config) if self._denoises else None
        steps = self.model.decoder.learn(self.model.encode(pixel_values), noised)
        with torch.autocast(pixel_values.device.type, enabled=False):
            terms = loss.losses(steps, targets, noised, config)
        answer = steps.layers[config.evaluated_layers - 1]
        return ObjectDetectionOutput(answer.logits, answer.boxes, loss.total(terms), terms)

    @property
    def _denoises(self) -> bool:
        return self.training and self.config.num_denoising > 0

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | PathLike[str], *, variant: str | None = None
    ) -> "RtDetrV2ForObjectDetection":
        """A trained model by name or file, in float32, ready to detect.

        Args:
            name_or_path: Name or alias of a published model, a `.pth` or `.safetensors` file, or
                a folder that transformers wrote.
            variant: The variant of a `.pth`, where its shapes and name leave it open.

        Raises:
            ModelError: There is no such model, or its file is damaged or does not fit.
        """
        from rtdetrv2_cli.model import checkpoint

        return checkpoint.load(name_or_path, variant=variant).model

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Writes a folder that transformers reads.

        Raises:
            CheckpointError: transformers cannot express this network; the message names why.
        """
        from rtdetrv2_cli.model import checkpoint

        checkpoint.save_pretrained(self, folder)


def _backbone(config: RtDetrV2Config) -> tuple[nn.Module, Sequence[int]]:
    """The backbone, and the widths of its maps."""
    frozen_norms = config.freeze_backbone_batch_norms
    match config.backbone_config:
        case PResNetConfig() as backbone:
            return PResNet(backbone, frozen_norms=frozen_norms), backbone.channels
        case HGNetV2Config() as backbone:
            return HGNetV2(backbone, frozen_norms=frozen_norms), backbone.channels
        case CSPNetConfig() as backbone:
            return CSPNet(backbone), backbone.channels
        case TimmConfig() as backbone:
            return timm_backbone(backbone, frozen_norms=frozen_norms)


def _check_size(pixel_values: Tensor, queries: int) -> None:
    height, width = pixel_values.shape[-2:]
    if type(height) is not int:  # a tracer's number, which must decide nothing
        return
    if height % 32 or width % 32:
        raise ValueError(f"the input is {height}x{width}, but both sides must be multiples of 32")
    if (found := positions(height, width)) < queries:
        raise ValueError(
            f"an input of {height}x{width} has {found} positions for {queries} queries: "
            "give a larger one"
        )


def positions(height: int, width: int) -> int:
    """How many places of an input queries can be selected from: its cells at strides 8, 16, 32."""
    return height * width * 21 // 1024
