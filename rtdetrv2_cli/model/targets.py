"""What there is to find in a batch, checked and padded. Knows no network and no loss."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from rtdetrv2_cli.model.boxes import to_corners


class Targets(NamedTuple):
    """The objects of b pictures, padded to the longest list, m objects."""

    class_ids: Tensor
    """[b, m]; the number of classes where there is no object."""
    boxes: Tensor
    """[b, m, 4] cxcywh in 0..1, in float32 at least."""
    counts: tuple[int, ...]
    """Objects of each picture."""
    ignored: Tensor
    """[b, k, 4] x1, y1, x2, y2 in 0..1: regions where nothing is told right from wrong; boxes
    of no area where there are fewer."""

    @property
    def present(self) -> Tensor:
        """[b, m] whether there is an object."""
        counts = torch.tensor(self.counts, device=self.boxes.device)
        return torch.arange(self.boxes.shape[1], device=self.boxes.device) < counts[:, None]

    @classmethod
    def from_labels(
        cls, labels: Sequence[Mapping[str, Tensor]], num_labels: int, *, device: torch.device
    ) -> Self:
        """Pads the labels of b pictures.

        Args:
            labels: For each picture `class_labels` [n] and `boxes` [n, 4] cxcywh in 0..1 (beyond
                the picture's border, too); if wanted, `ignored` [k, 4] cxcywh.
            num_labels: How many classes there are.
            device: Where the targets shall be.

        Raises:
            ValueError: A label makes no sense; the message says which picture's and why.
        """
        counts = tuple(_checked_count(i, picture, num_labels) for i, picture in enumerate(labels))
        dtype = torch.promote_types(
            torch.float32, labels[0]["boxes"].dtype if labels else torch.float32
        )
        boxes = torch.zeros(len(labels), max(counts, default=0), 4, dtype=dtype)
        class_ids = torch.full(boxes.shape[:2], num_labels)
        regions = [picture.get("ignored", boxes.new_zeros(0, 4)) for picture in labels]
        ignored = torch.zeros(len(labels), max(map(len, regions), default=0), 4, dtype=dtype)
        for i, (picture, n) in enumerate(zip(labels, counts, strict=True)):
            class_ids[i, :n] = picture["class_labels"]
            boxes[i, :n] = picture["boxes"]
            ignored[i, : len(regions[i])] = regions[i]
        return cls(class_ids.to(device), boxes.to(device), counts, to_corners(ignored).to(device))


def _checked_count(index: int, picture: Mapping[str, Tensor], num_labels: int) -> int:
    class_ids, boxes = picture["class_labels"], picture["boxes"]
    if class_ids.ndim != 1 or boxes.shape != (len(class_ids), 4):
        raise ValueError(
            f"picture {index} of the batch has class_labels {tuple(class_ids.shape)} and boxes "
            f"{tuple(boxes.shape)}: expected [n] and [n, 4]"
        )
    if len(class_ids) and not 0 <= int(class_ids.min()) <= int(class_ids.max()) < num_labels:
        raise ValueError(
            f"picture {index} of the batch has a class outside 0..{num_labels - 1}: "
            f"{class_ids.tolist()}"
        )
    if not bool(boxes.isfinite().all()) or bool((boxes[:, 2:] < 0).any()):
        raise ValueError(
            f"picture {index} of the batch has a box that is not finite or of negative extent: "
            f"{boxes.tolist()}"
        )
    ignored = picture.get("ignored", boxes[:0])
    if ignored.ndim != 2 or ignored.shape[1] != 4 or not bool(ignored.isfinite().all()):
        raise ValueError(
            f"picture {index} of the batch has ignored regions {tuple(ignored.shape)}: expected "
            "[k, 4], all finite"
        )
    return len(class_ids)
