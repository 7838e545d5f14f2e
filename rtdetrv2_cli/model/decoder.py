"""Query selection, the decoder's layers, and the heads. Knows no backbone and no loss."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from rtdetrv2_cli.model.attention import DeformableAttention, SelfAttention
from rtdetrv2_cli.model.config import RtDetrV2Config
from rtdetrv2_cli.model.layers import (
    ACTIVATIONS,
    MLP,
    ConvNorm,
    logit,
    start_at_prior,
    start_at_zero,
    start_xavier,
    widened,
)

if TYPE_CHECKING:  # only training needs it, and it needs scipy
    from rtdetrv2_cli.model.denoising import NoisedQueries

Shapes = Sequence[tuple[int, int]]
"""Height and width of each level's map."""

_INVALID = 1e4
"""Logit of an anchor that must not be used: its sigmoid is 1, and float16 can hold it."""


class Selection(NamedTuple):
    """The encoder's best guesses, where the decoder starts."""

    content: Tensor
    """[b, q, d]"""
    box_logits: Tensor
    """[b, q, 4] cxcywh before the sigmoid, in float32 at least."""
    class_logits: Tensor
    """[b, q, c]; one class only where selection is class-agnostic."""


class Refinement(NamedTuple):
    """What one decoder layer made of the queries."""

    hidden: Tensor
    """[b, q, d]"""
    shift: Tensor
    """[b, q, 4] the box head's answer, to be added to the logits of the boxes before."""
    boxes: Tensor
    """[b, q, 4] cxcywh in 0..1; the boxes before are constants to their gradient."""


class Answer(NamedTuple):
    """Classes and boxes of some queries, to be judged by the loss."""

    logits: Tensor
    """[b, q, c] in float32 at least."""
    boxes: Tensor
    """[b, q, 4] cxcywh in 0..1, in float32 at least."""


class TrainingSteps(NamedTuple):
    """Everything that learns from a batch."""

    selected: Answer
    """Of the encoder; one class only where selection is class-agnostic."""
    layers: list[Answer]
    """Of the selected queries, layer by layer."""
    noised: list[Answer]
    """Of the noised queries, layer by layer; empty without denoising."""


class Decoder(nn.Module):
    """Selects queries from the encoder's maps and refines them layer by layer.

    Module names are those of the official checkpoints. The steps are methods, so that training
    can put denoising queries between selection and refinement, and see every layer.
    """

    def __init__(self, config: RtDetrV2Config) -> None:
        super().__init__()
        self.num_queries = config.num_queries
        self.look_forward_twice = config.look_forward_twice
        self.evaluated_layers = config.evaluated_layers
        self.rank = QUERY_SELECTORS[config.query_select_method]
        dim, labels, layers = config.d_model, config.num_labels, config.decoder_layers
        eps = config.batch_norm_eps
        self.input_proj = nn.ModuleList(
            ConvNorm(config.encoder_hidden_dim, dim, eps=eps) for _ in config.num_points
        )
        self.decoder = DecoderLayers(config)
        if config.num_denoising:
            self.denoising_class_embed = nn.Embedding(labels + 1, dim, padding_idx=labels)
        self.tgt_embed = (
            nn.Embedding(config.num_queries, dim) if config.learn_initial_query else None
        )
        self.query_pos_head = MLP(4, 2 * dim, dim)
        self.enc_output = EncoderOutput(dim, eps=config.layer_norm_eps)
        self.enc_score_head = nn.Linear(
            dim, 1 if config.query_select_method == "agnostic" else labels
        )
        self.enc_bbox_head = MLP(dim, dim, dim, 4)
        self.dec_score_head = nn.ModuleList(nn.Linear(dim, labels) for _ in range(layers))
        self.dec_bbox_head = nn.ModuleList(MLP(dim, dim, dim, 4) for _ in range(layers))
        self._start()

    def forward(self, maps: Sequence[Tensor]) -> tuple[Selection, list[Refinement]]:
        """Selection and the layers up to the evaluated one, from maps [b, c, h, w]."""
        memory, shapes = self.flatten(maps)
        selection = self.select(memory, shapes)
        boxes = selection.box_logits.detach().sigmoid()
        values = self._values(memory, shapes, layers=self.evaluated_layers)
        return selection, self.refine(selection.content, boxes, values)

    def learn(self, maps: Sequence[Tensor], noised: "NoisedQueries | None") -> TrainingSteps:
        """Selection, and all layers with noised queries before the selected ones."""
        memory, shapes = self.flatten(maps)
        selection = self.select(memory, shapes)
        content, boxes = selection.content, selection.box_logits.detach().sigmoid()
        count = 0
        if noised is not None:
            count = noised.class_ids.shape[1]
            content = torch.cat([self.denoising_class_embed(noised.class_ids), content], dim=1)
            boxes = torch.cat([noised.box_logits.to(boxes.dtype).sigmoid(), boxes], dim=1)
        mask = None if noised is None else noised.mask
        values = self._values(memory, shapes, layers=len(self.decoder.layers))
        steps = self.refine(content, boxes, values, mask=mask)
        answers = [
            Answer(_wide(score_head(step.hidden)), learned)
            for score_head, step, learned in zip(
                self.dec_score_head, steps, self._learned_boxes(steps), strict=True
            )
        ]
        return TrainingSteps(
            Answer(_wide(selection.class_logits), selection.box_logits.sigmoid()),
            [Answer(logits[:, count:], boxes[:, count:]) for logits, boxes in answers],
            [Answer(logits[:, :count], boxes[:, :count]) for logits, boxes in answers if count],
        )

    def _learned_boxes(self, steps: Sequence[Refinement]) -> list[Tensor]:
        """The boxes [b, q, 4] of each step as the loss sees them.

        Looking forward twice (DINO, arXiv 2203.03605, section 3.5), a step's box is a function of
        the box head before it, too: the values are the same, the gradient reaches one step back.
        """
        boxes = [step.boxes for step in steps]
        if not self.look_forward_twice:
            return boxes
        later = [
            (step.shift + logit(before)).sigmoid()
            for step, before in zip(steps[1:], boxes, strict=False)
        ]
        return [*boxes[:1], *later]

    def flatten(self, maps: Sequence[Tensor]) -> tuple[Tensor, Shapes]:
        """Maps [b, c, h, w] as one memory [b, s, d], finest level first, and their shapes."""
        maps = [project(x) for project, x in zip(self.input_proj, maps, strict=True)]
        memory = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)
        return memory, [(x.shape[2], x.shape[3]) for x in maps]

    def select(self, memory: Tensor, shapes: Shapes) -> Selection:
        """The best-scored positions of memory [b, s, d] as queries, best first."""
        anchors, valid = make_anchors(shapes, dtype=widened(memory.dtype), device=memory.device)
        encoded = self.enc_output(memory * valid)
        scores = self.enc_score_head(encoded)  # [b, s, c]
        index = self.rank(scores, self.num_queries)  # [b, q]
        return self.begin(take(encoded, index), take(scores, index), anchors[index])

    def begin(self, selected: Tensor, class_logits: Tensor, anchors: Tensor) -> Selection:
        """What the decoder starts from.

        Args:
            selected: [b, q, d] what the heads see of the selected positions. One position's box
                depends on no other: only theirs are computed.
            class_logits: [b, q, c] of theirs.
            anchors: [b, q, 4] the boxes that they start from.
        """
        shift = self.enc_bbox_head(selected).to(anchors.dtype)
        content = selected.detach()
        if self.tgt_embed is not None:
            content = self.tgt_embed.weight.expand_as(selected)
        return Selection(content, shift + anchors, class_logits)

    def refine(
        self,
        hidden: Tensor,
        boxes: Tensor,
        values: Iterable[Sequence[Tensor]],
        *,
        mask: Tensor | None = None,
    ) -> list[Refinement]:
        """Runs as many decoder layers as there are values.

        Args:
            hidden: [b, q, d] content of the queries.
            boxes: [b, q, 4] cxcywh in 0..1, in float32 at least.
            values: What each layer samples, level by level; see `DeformableAttention.values`.
            mask: [q, q] boolean, True where the row's query may see the column's.
        """
        steps = []
        for sampled, layer, box_head in zip(
            values, self.decoder.layers, self.dec_bbox_head, strict=False
        ):
            position = self.query_pos_head(boxes.to(hidden.dtype))
            hidden = layer(hidden, position, boxes, sampled, mask)
            shift = box_head(hidden).to(boxes.dtype)
            refined = (shift + logit(boxes)).sigmoid()
            steps.append(Refinement(hidden, shift, refined))
            boxes = refined.detach()
        return steps

    def _values(self, memory: Tensor, shapes: Shapes, *, layers: int) -> Iterator[Sequence[Tensor]]:
        for layer in islice(self.decoder.layers, layers):
            assert isinstance(layer, DecoderLayer)
            yield layer.cross_attn.values(memory, shapes)

    def _start(self) -> None:
        """The authors' initial values, where they differ from torch's."""
        start_xavier(*(project.get_submodule("conv") for project in self.input_proj))
        start_xavier(self.enc_output.proj, *self.query_pos_head.layers)
        if self.tgt_embed is not None:
            start_xavier(self.tgt_embed)
        for score_head in (self.enc_score_head, *self.dec_score_head):
            start_at_prior(score_head)
        for box_head in (self.enc_bbox_head, *self.dec_bbox_head):
            start_at_zero(box_head.get_submodule("layers.2"))


class EncoderOutput(nn.Module):
    """Linear layer and norm ahead of the encoder's heads."""

    def __init__(self, dim: int, *, eps: float) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))


class DecoderLayers(nn.Module):
    """Only gives the layers the name that checkpoints know them by."""

    def __init__(self, config: RtDetrV2Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))


class DecoderLayer(nn.Module):
    """Queries attend to each other, then to the maps; each step added and then normalised."""

    def __init__(self, config: RtDetrV2Config) -> None:
        super().__init__()
        dim, heads = config.d_model, config.decoder_attention_heads
        self.self_attn = SelfAttention(dim, heads)
        self.norm1 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.cross_attn = DeformableAttention(
            dim,
            heads,
            config.num_points,
            method=config.decoder_method,
            offset_scale=config.decoder_offset_scale,
        )
        self.norm2 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.linear1 = nn.Linear(dim, config.decoder_ffn_dim)
        self.linear2 = nn.Linear(config.decoder_ffn_dim, dim)
        self.norm3 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.act = ACTIVATIONS[config.decoder_activation_function]()
        start_xavier(self.linear1, self.linear2)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        boxes: Tensor,
        values: Sequence[Tensor],
        mask: Tensor | None = None,
    ) -> Tensor:
        """[b, q, d] -> [b, q, d]; arguments as in `Decoder.refine`."""
        x = self.norm1(x + self.self_attn(x + position, x, mask))
        x = self.norm2(x + self.cross_attn(x + position, boxes, values))
        return self.norm3(x + self.linear2(self.act(self.linear1(x))))


def make_anchors(
    shapes: Shapes, *, dtype: torch.dtype, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """A box at every cell, 0.05 · 2^level of the picture wide and high.

    Returns:
        The logits of the boxes, [s, 4] cxcywh, and [s, 1] boolean: whether all four numbers lie
        within 0.01 and 0.99. The boxes that do not are moved out of reach.
    """
    levels = []
    for level, (height, width) in enumerate(shapes):
        y = (torch.arange(height, dtype=dtype, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=dtype, device=device) + 0.5) / width
        centre = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # [h, w, 2]
        size = torch.full_like(centre, 0.05 * 2**level)
        levels.append(torch.cat([centre, size], dim=-1).flatten(0, 1))
    boxes = torch.cat(levels)
    valid = ((boxes > 0.01) & (boxes < 0.99)).all(-1, keepdim=True)
    logits = torch.log(boxes / (1 - boxes))
    return logits.masked_fill(~valid, _INVALID), valid


def rank_by_best_class(scores: Tensor, count: int) -> Tensor:
    """Positions [b, q] of the highest best class among scores [b, s, c]."""
    return scores.amax(-1).topk(count, dim=1).indices


def rank_by_any_class(scores: Tensor, count: int) -> Tensor:
    """Positions [b, q] of the highest scores; one position comes once for each class it has."""
    return scores.flatten(1).topk(count, dim=1).indices // scores.shape[-1]


QUERY_SELECTORS: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "default": rank_by_best_class,
    "one2many": rank_by_any_class,
    "agnostic": rank_by_best_class,  # of one class: object or not
}


def _wide(x: Tensor) -> Tensor:
    return x.to(widened(x.dtype))


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows `index` [b, q] of x [b, s, n]: [b, q, n]."""
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
