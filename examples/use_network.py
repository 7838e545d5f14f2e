"""The network by itself, in plain PyTorch: a preset with random weights, and its shapes."""

import torch

from rtdetrv2_cli import RtDetrV2Config, RtDetrV2ForObjectDetection


def main() -> None:
    """Prints the shapes of what RT-DETRv2-S gives for two pictures of 320x480."""
    network = RtDetrV2ForObjectDetection(RtDetrV2Config.from_preset("r18vd")).eval()
    with torch.inference_mode():
        output = network(torch.rand(2, 3, 320, 480))
    print("logits", tuple(output.logits.shape), "boxes", tuple(output.pred_boxes.shape))


if __name__ == "__main__":
    main()
