from dataclasses import replace

import pytest
import torch

from rtdetrv2_cli.model.decoder import QUERY_SELECTORS, Decoder, make_anchors


def _maps(config, batch=2, height=64, width=96, dtype=torch.float64):
    torch.manual_seed(1)
    dim = config.encoder_hidden_dim
    return [torch.randn(batch, dim, height // s, width // s, dtype=dtype) for s in (8, 16, 32)]


@pytest.fixture
def decoder(tiny_config):
    torch.manual_seed(0)
    return lively(Decoder(tiny_config).double().eval())


def lively(decoder):
    """Lets every weight matter: an untrained decoder moves no box."""
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return decoder


def test_at_640_8084_of_8400_anchors_are_valid():
    logits, valid = make_anchors([(80, 80), (40, 40), (20, 20)], dtype=torch.float32)
    assert logits.shape == (8400, 4)
    assert [int(v.sum()) for v in valid.split([6400, 1600, 400])] == [6084, 1600, 400]
    assert not valid[:6400].view(80, 80)[0].any()
    assert not valid[:6400].view(80, 80)[:, 79].any()


def test_an_anchor_is_a_box_in_the_middle_of_its_cell():
    logits, valid = make_anchors([(6, 10), (3, 5), (2, 3)], dtype=torch.float64)
    boxes = logits.sigmoid()
    assert boxes[1 * 10 + 3].tolist() == pytest.approx([3.5 / 10, 1.5 / 6, 0.05, 0.05])
    assert boxes[60 + 2 * 5 + 1].tolist() == pytest.approx([1.5 / 5, 2.5 / 3, 0.1, 0.1])
    assert boxes[60 + 15 + 3].tolist() == pytest.approx([0.5 / 3, 1.5 / 2, 0.2, 0.2])
    assert valid.all()


def test_an_invalid_anchor_is_out_of_reach():
    logits, valid = make_anchors([(80, 1)], dtype=torch.float64)
    assert not valid[0]
    assert ((logits[0] - 1000).sigmoid() == 1).all()


def test_default_selection_takes_each_best_position_once():
    scores = torch.tensor([[[1.0, 9.0], [8.0, 7.0], [0.0, 2.0]]])
    assert QUERY_SELECTORS["default"](scores, 2).tolist() == [[0, 1]]


def test_one2many_selection_takes_a_position_once_for_each_of_its_classes():
    scores = torch.tensor([[[1.0, 9.0], [8.0, 7.0], [0.0, 2.0]]])
    assert QUERY_SELECTORS["one2many"](scores, 3).tolist() == [[0, 1, 1]]


def test_agnostic_selection_has_a_score_head_of_one_class(tiny_config):
    decoder = lively(Decoder(replace(tiny_config, query_select_method="agnostic")).double())
    selection, steps = decoder(_maps(tiny_config))
    assert decoder.enc_score_head.weight.shape == (1, 32)
    assert selection.class_logits.shape == (2, 10, 1)
    assert decoder.dec_score_head[0](steps[0].hidden).shape == (2, 10, 3)


def test_selected_queries_are_the_best_and_in_order(decoder, tiny_config):
    memory, shapes = decoder.flatten(_maps(tiny_config))
    selection = decoder.select(memory, shapes)
    anchors, valid = make_anchors(shapes, dtype=torch.float64)
    encoded = decoder.enc_output(memory * valid)
    scores, index = decoder.enc_score_head(encoded).max(-1).values.topk(10)
    assert torch.equal(selection.class_logits.max(-1).values, scores)
    all_boxes = decoder.enc_bbox_head(encoded) + anchors
    for b in range(2):
        assert torch.allclose(selection.box_logits[b], all_boxes[b, index[b]], atol=1e-12)
        assert torch.equal(selection.content[b], encoded[b, index[b]])


def test_learned_queries_start_alike_in_every_picture(tiny_config):
    decoder = lively(Decoder(replace(tiny_config, learn_initial_query=True)).double())
    memory, shapes = decoder.flatten(_maps(tiny_config))
    selection = decoder.select(memory, shapes)
    assert decoder.tgt_embed.weight.shape == (10, 32)
    assert torch.equal(selection.content[0], decoder.tgt_embed.weight)
    assert torch.equal(selection.content[0], selection.content[1])
    assert not torch.equal(selection.box_logits[0], selection.box_logits[1])
    assert selection.content.requires_grad


@pytest.mark.parametrize(("eval_idx", "layers"), [(-1, 4), (0, 1), (2, 3), (-3, 2)])
def test_layers_after_the_evaluated_one_do_not_run(tiny_config, eval_idx, layers):
    config = replace(tiny_config, decoder_layers=4, eval_idx=eval_idx)
    torch.manual_seed(0)
    decoder = lively(Decoder(config).double())
    ran = []
    for i, layer in enumerate(decoder.decoder.layers):
        layer.register_forward_hook(lambda *_, i=i: ran.append(i))
    _, steps = decoder(_maps(config))
    assert ran == list(range(layers))
    assert len(steps) == layers


def test_boxes_are_refined_from_the_boxes_before(decoder, tiny_config):
    selection, steps = decoder(_maps(tiny_config))
    before = selection.box_logits.sigmoid()
    for step in steps:
        expected = torch.sigmoid(step.shift + torch.log(before / (1 - before)))
        assert torch.allclose(step.boxes, expected, atol=1e-10)
        assert (step.boxes - before).abs().max() > 1e-3
        before = step.boxes


def test_a_layer_learns_from_its_own_boxes_only(decoder, tiny_config):
    decoder.train()
    _, steps = decoder(_maps(tiny_config))
    steps[1].boxes.sum().backward()
    assert decoder.dec_bbox_head[1].layers[2].weight.grad is not None
    assert decoder.dec_bbox_head[0].layers[2].weight.grad is None
    assert decoder.enc_bbox_head.layers[2].weight.grad is None


def test_more_queries_and_all_layers_run_under_a_mask(decoder, tiny_config):
    """As training needs it: queries that the others must not see, in front of them."""
    memory, shapes = decoder.flatten(_maps(tiny_config))
    selection = decoder.select(memory, shapes)
    content, boxes = selection.content, selection.box_logits.sigmoid()
    values = [layer.cross_attn.values(memory, shapes) for layer in decoder.decoder.layers]
    alone = decoder.refine(content, boxes, values[:2])
    mask = torch.ones(14, 14, dtype=torch.bool)
    mask[4:, :4] = False
    together = decoder.refine(
        torch.cat([torch.randn_like(content[:, :4]), content], dim=1),
        torch.cat([torch.rand_like(boxes[:, :4]), boxes], dim=1),
        values[:2],
        mask=mask,
    )
    assert together[1].boxes.shape == (2, 14, 4)
    assert torch.allclose(together[1].boxes[:, 4:], alone[1].boxes, atol=1e-12)
    assert torch.allclose(together[1].hidden[:, 4:], alone[1].hidden, atol=1e-12)


def test_untrained_heads_start_where_the_authors_start_them(tiny_config):
    decoder = Decoder(tiny_config)
    for head in (decoder.enc_score_head, *decoder.dec_score_head):
        assert head.bias.tolist() == pytest.approx([-4.59512] * 3, abs=1e-5)
    for head in (decoder.enc_bbox_head, *decoder.dec_bbox_head):
        assert head.layers[2].weight.abs().max() == head.layers[2].bias.abs().max() == 0
        assert head.layers[1].weight.abs().max() > 0
    assert decoder.denoising_class_embed.weight.shape == (4, 32)
    assert decoder.denoising_class_embed.weight[3].abs().max() == 0
    limit = (6 / (32 + 32)) ** 0.5  # xavier-uniform's bound
    assert 0.9 * limit < decoder.enc_output.proj.weight.abs().max() <= limit


def test_without_denoising_there_is_nothing_to_embed(tiny_config):
    decoder = Decoder(replace(tiny_config, num_denoising=0))
    assert not any("denoising" in name for name in decoder.state_dict())
