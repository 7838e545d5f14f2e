"""The decoder's deploy form: what follows each map's projection is folded into it."""

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor, nn, unflatten

from rtdetrv2_cli.model.affine import Affine, affine_of, after, convolution
from rtdetrv2_cli.model.attention import DeformableAttention
from rtdetrv2_cli.model.decoder import (
    Decoder,
    DecoderLayer,
    Refinement,
    Selection,
    Shapes,
    make_anchors,
    take,
)
from rtdetrv2_cli.model.layers import widened


class FoldedDecoder(Decoder):
    """A decoder that never makes the memory: a 1x1 convolution on each map does for each use.

    The projection of a map, and the linear layer before the heads or a layer's projection to
    values, are one product; and values come out as the maps that are sampled. Layers that are not
    evaluated are left out. For inference only.

    Args:
        decoder: What it is made of; modules are shared, and it stays as it is.
    """

    def __init__(self, decoder: Decoder) -> None:
        nn.Module.__init__(self)
        projections = [*map(affine_of, decoder.input_proj)]
        self.register_buffer("anchors", None)
        self.register_buffer("valid", None)
        self.num_queries, self.rank = decoder.num_queries, decoder.rank
        self.tgt_embed, self.query_pos_head = decoder.tgt_embed, decoder.query_pos_head
        self.enc_score_head, self.enc_bbox_head = decoder.enc_score_head, decoder.enc_bbox_head
        self.dec_score_head, self.dec_bbox_head = decoder.dec_score_head, decoder.dec_bbox_head
        self.decoder = decoder.decoder
        self.encoded = _after(projections, decoder.enc_output.proj)
        self.norm = decoder.enc_output.norm
        with torch.no_grad():
            beyond = self.norm(decoder.enc_output.proj.bias)
            self.beyond = nn.Parameter(beyond)
            """What the heads see of a position that must not be used, whose memory is 0."""
            self.beyond_scores = nn.Parameter(self.enc_score_head(beyond))
        layers = [*islice(decoder.decoder.layers, decoder.evaluated_layers)]
        self.values = nn.ModuleList(
            _after(projections, _attention(layer).value_proj) for layer in layers
        )

    anchors: Tensor | None
    """Logits of the boxes at every position, where the size is fixed, and whether each counts."""
    valid: Tensor | None

    def forward(self, maps: Sequence[Tensor]) -> tuple[Selection, list[Refinement]]:
        """Selection and the layers up to the evaluated one, from maps [b, c, h, w]."""
        anchors, valid = self._anchors_of(maps)
        projected = [
            project(x).flatten(2).transpose(1, 2)
            for project, x in zip(self.encoded, maps, strict=True)
        ]
        encoded = self.norm(torch.cat(projected, dim=1))  # [b, s, d], right where it is valid
        scores = torch.where(valid, self.enc_score_head(encoded), self.beyond_scores)  # [b, s, c]
        index = self.rank(scores, self.num_queries)  # [b, q]
        selected = torch.where(valid[index], take(encoded, index), self.beyond)
        selection = self.begin(selected, take(scores, index), anchors[index])
        boxes = selection.box_logits.sigmoid()
        return selection, self.refine(selection.content, boxes, self._sampled(maps))

    def fix_size(self, shapes: Shapes) -> None:
        """Makes the anchors constants, of the only maps there will be.

        They would be converted with the module: it has its precision before.
        """
        self.anchors, self.valid = make_anchors(shapes, dtype=widened(self.beyond.dtype))

    def _anchors_of(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        if self.anchors is not None and self.valid is not None:
            return self.anchors, self.valid
        shapes = [(x.shape[2], x.shape[3]) for x in maps]
        return make_anchors(shapes, dtype=widened(maps[0].dtype), device=maps[0].device)

    def _sampled(self, maps: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        for layer, projects in zip(self.decoder.layers, self.values, strict=False):
            assert isinstance(projects, nn.ModuleList)
            heads = _attention(layer).heads
            values = [project(x).contiguous() for project, x in zip(projects, maps, strict=True)]
            yield [unflatten(x, 1, (heads, -1)).flatten(0, 1).to(widened(x.dtype)) for x in values]


def _attention(layer: nn.Module) -> DeformableAttention:
    assert isinstance(layer, DecoderLayer)
    return layer.cross_attn


def _after(projections: Sequence[Affine], linear: nn.Linear) -> nn.ModuleList:
    """A 1x1 convolution for each level: its projection and then `linear`."""
    weight, bias = linear.weight.detach().double(), linear.bias.detach().double()
    return nn.ModuleList(
        convolution(after(projection, (weight, bias)), like=linear.weight)
        for projection in projections
    )
