"""The deploy form as other programs want it: tensors in, tensors out. Knows no engine."""

from torch import Tensor, nn

from rtdetrv2_cli.model.fuse import fuse
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection


class RawNetwork(nn.Module):
    """Answers with every query's logits and box."""

    inputs: tuple[str, ...] = ("images",)
    outputs: tuple[str, ...] = ("logits", "pred_boxes")

    def __init__(self, model: RtDetrV2ForObjectDetection) -> None:
        super().__init__()
        self.network = fuse(model)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[b, 3, H, W] RGB in 0..1 -> logits [b, q, c] and boxes [b, q, 4], cxcywh in 0..1."""
        output = self.network(images)
        return output.logits, output.pred_boxes
