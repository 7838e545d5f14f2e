"""The deploy form as other programs want it: tensors in, tensors out. Knows no engine."""

import torch
from torch import Tensor, nn

from rtdetrv2_cli.model.fuse import fuse
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.types import Size


class RawNetwork(nn.Module):
    """Answers with every query's logits and box, for pictures of one size.

    Args:
        model: It stays as it is.
        size: Of the pictures.
        dtype: What it computes in, as `fuse` does; None: what the model does. Inputs and outputs
            are float32 in half precision, too.
    """

    inputs: tuple[str, ...] = ("images",)
    outputs: tuple[str, ...] = ("logits", "pred_boxes")

    def __init__(
        self, model: RtDetrV2ForObjectDetection, size: Size, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.network = fuse(model, size, dtype)
        self.dtype = dtype

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[b, 3, H, W] RGB in 0..1 -> logits [b, q, c] and boxes [b, q, 4], cxcywh in 0..1."""
        output = self.network(images if self.dtype is None else images.to(self.dtype))
        return output.logits.to(output.pred_boxes.dtype), output.pred_boxes


class DetectingNetwork(RawNetwork):
    """Answers with detections, as the reference's exported network does."""

    inputs = ("images", "orig_target_sizes")
    outputs = ("labels", "boxes", "scores")

    def forward(  # type: ignore[override]  # what it is given and gives is its difference
        self, images: Tensor, orig_target_sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best (query, class) pairs of every picture, as many as there are queries, best first.

        Args:
            images: [b, 3, H, W] RGB in 0..1.
            orig_target_sizes: [b, 2] int64, width and height of the pictures before resizing.

        Returns:
            Class ids [b, q] int64, boxes [b, q, 4] xyxy in pixels, and scores [b, q].
        """
        logits, boxes = super().forward(images)
        classes = logits.shape[-1]
        best, index = logits.flatten(1).topk(self.network.config.num_queries, dim=1)  # [b, q]
        labels = index % classes
        query = torch.div(index, classes, rounding_mode="floor")
        boxes = boxes.gather(1, query.unsqueeze(-1).expand(-1, -1, 4))
        centre, half = boxes[..., :2], boxes[..., 2:] / 2
        scale = orig_target_sizes.to(boxes.dtype).repeat(1, 2).unsqueeze(1)  # [b, 1, 4]
        return labels, torch.cat([centre - half, centre + half], dim=-1) * scale, best.sigmoid()
