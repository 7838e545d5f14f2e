from dataclasses import replace

import pytest
import torch
from torch import nn

from rtdetrv2_cli.model.config import PRESETS, CSPNetConfig, HGNetV2Config, RtDetrV2Config
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection, RtDetrV2Model

# total, backbone, affine values of frozen norms, encoder, decoder, trainable, official keys
COUNTS = {
    "r18vd": (20_184_464, 11_199_968, 0, 4_965_120, 4_019_376, 20_184_464, 538),
    "r18vd_sp1": (20_017_928, 11_199_968, 0, 4_965_120, 3_852_840, 20_017_928, 538),
    "r18vd_sp2": (20_073_440, 11_199_968, 0, 4_965_120, 3_908_352, 20_073_440, 538),
    "r18vd_sp3": (20_128_952, 11_199_968, 0, 4_965_120, 3_963_864, 20_128_952, 538),
    "r34vd": (31_441_668, 21_308_128, 0, 4_965_120, 5_168_420, 31_441_668, 665),
    "r50vd_m": (36_593_772, 23_474_016, 53_248, 5_653_248, 7_466_508, 36_565_260, 768),
    "r50vd": (42_891_372, 23_474_016, 53_248, 11_950_848, 7_466_508, 42_862_860, 744),
    "r101vd": (76_556_268, 42_413_920, 105_472, 26_577_536, 7_564_812, 76_527_756, 999),
    "hgnetv2_l": (32_925_036, 13_507_680, 45_696, 11_950_848, 7_466_508, 32_900_108, 869),
    "hgnetv2_x": (67_374_188, 33_231_840, 93_920, 26_577_536, 7_564_812, 67_348_748, 1119),
    "hgnetv2_h": (125_584_348, 68_847_056, 166_416, 49_074_176, 7_663_116, 125_527_756, 1351),
    "r18vd_dsp": (20_184_464, 11_199_968, 0, 4_965_120, 4_019_376, 20_036_432, 538),
    "r34vd_dsp": (31_441_668, 21_308_128, 0, 4_965_120, 5_168_420, 31_244_292, 665),
    "r50vd_m_dsp": (36_593_772, 23_474_016, 53_248, 5_653_248, 7_466_508, 36_269_196, 768),
    "r50vd_dsp": (42_891_372, 23_474_016, 53_248, 11_950_848, 7_466_508, 42_566_796, 744),
}


def _count(tensors):
    return sum(tensor.numel() for tensor in tensors)


@pytest.mark.parametrize("name", COUNTS)
def test_a_published_variant_has_exactly_its_published_weights(name):
    with torch.device("meta"):
        model = RtDetrV2Model(PRESETS[name])
    total, backbone, affine, encoder, decoder, trainable, keys = COUNTS[name]
    assert _count(model.backbone.parameters()) == backbone
    assert _count(model.encoder.parameters()) == encoder
    assert _count(model.decoder.parameters()) == decoder
    assert _count(model.parameters()) == total
    assert _count(p for p in model.parameters() if p.requires_grad) == trainable
    frozen = [b for n, b in model.backbone.named_buffers() if n.endswith(("weight", "bias"))]
    assert _count(frozen) == affine
    assert len(model.state_dict()) + 2 == keys  # theirs also keep anchors and a mask


def test_twenty_classes_make_the_published_voc_model():
    with torch.device("meta"):
        model = RtDetrV2Model(replace(PRESETS["r18vd"], id2label={}, num_labels=20))
    assert _count(model.parameters()) == 20_107_424


def test_weights_have_the_official_names_and_shapes():
    with torch.device("meta"):
        shapes = {
            k: tuple(v.shape) for k, v in RtDetrV2Model(PRESETS["r18vd"]).state_dict().items()
        }
    for name, shape in {
        "backbone.conv1.conv1_1.conv.weight": (32, 3, 3, 3),
        "backbone.conv1.conv1_3.norm.running_var": (64,),
        "backbone.res_layers.0.blocks.0.short.conv.weight": (64, 64, 1, 1),
        "backbone.res_layers.1.blocks.0.short.conv.norm.num_batches_tracked": (),
        "backbone.res_layers.3.blocks.1.branch2b.conv.weight": (512, 512, 3, 3),
        "encoder.input_proj.2.conv.weight": (256, 512, 1, 1),
        "encoder.encoder.0.layers.0.self_attn.in_proj_weight": (768, 256),
        "encoder.encoder.0.layers.0.linear1.weight": (1024, 256),
        "encoder.encoder.0.layers.0.norm2.bias": (256,),
        "encoder.lateral_convs.1.norm.weight": (256,),
        "encoder.fpn_blocks.0.conv1.conv.weight": (128, 512, 1, 1),
        "encoder.pan_blocks.1.bottlenecks.2.conv2.conv.weight": (128, 128, 1, 1),
        "encoder.downsample_convs.0.conv.weight": (256, 256, 3, 3),
        "decoder.input_proj.0.norm.running_mean": (256,),
        "decoder.decoder.layers.2.cross_attn.sampling_offsets.weight": (192, 256),
        "decoder.decoder.layers.2.cross_attn.attention_weights.weight": (96, 256),
        "decoder.decoder.layers.2.cross_attn.num_points_scale": (12,),
        "decoder.decoder.layers.0.self_attn.in_proj_bias": (768,),
        "decoder.decoder.layers.0.self_attn.out_proj.weight": (256, 256),
        "decoder.decoder.layers.0.norm3.weight": (256,),
        "decoder.denoising_class_embed.weight": (81, 256),
        "decoder.query_pos_head.layers.0.weight": (512, 4),
        "decoder.query_pos_head.layers.1.weight": (256, 512),
        "decoder.enc_output.proj.weight": (256, 256),
        "decoder.enc_output.norm.weight": (256,),
        "decoder.enc_score_head.weight": (80, 256),
        "decoder.enc_bbox_head.layers.2.weight": (4, 256),
        "decoder.dec_score_head.2.bias": (80,),
        "decoder.dec_bbox_head.2.layers.1.weight": (256, 256),
    }.items():
        assert shapes[name] == shape, name
    assert shapes.keys().isdisjoint({"decoder.anchors", "decoder.valid_mask"})


def test_hgnetv2_has_the_official_names():
    with torch.device("meta"):
        names = set(RtDetrV2Model(PRESETS["hgnetv2_l"]).state_dict())
    assert names >= {
        "backbone.stem.stem1.conv.weight",
        "backbone.stem.stem2a.conv.1.weight",
        "backbone.stem.stem4.bn.running_var",
        "backbone.stages.1.downsample.conv.weight",
        "backbone.stages.1.blocks.0.layers.5.bn.weight",
        "backbone.stages.2.blocks.2.layers.0.conv1.conv.weight",
        "backbone.stages.3.blocks.0.layers.5.conv2.bn.bias",
        "backbone.stages.3.blocks.0.aggregation_squeeze_conv.conv.weight",
        "backbone.stages.3.blocks.0.aggregation_excitation_conv.bn.weight",
    }


@pytest.fixture
def model(tiny_config, randomise):
    torch.manual_seed(0)
    return randomise(RtDetrV2ForObjectDetection(tiny_config), size=(64, 96))


def test_the_detector_answers_with_classes_and_boxes(model, picture):
    output = model(picture(64, 96, batch=2))
    assert output.logits.shape == (2, 10, 3)
    assert output.pred_boxes.shape == (2, 10, 4)
    assert output.loss is output.loss_dict is None
    assert 0 <= output.pred_boxes.min() <= output.pred_boxes.max() <= 1


def test_the_model_tells_what_it_saw_on_the_way(model, picture):
    x = picture(64, 96)
    output = model.model(x)
    assert [tuple(h.shape) for h in output.hidden_states] == [(1, 10, 32)] * 2
    assert [tuple(b.shape) for b in output.reference_boxes] == [(1, 10, 4)] * 2
    assert [tuple(m.shape[2:]) for m in output.encoder_feature_maps] == [(8, 12), (4, 6), (2, 3)]
    assert output.enc_topk_logits.shape == (1, 10, 3)
    assert output.enc_topk_boxes.shape == (1, 10, 4)
    assert torch.equal(output.reference_boxes[-1], model(x).pred_boxes)


def test_the_detector_has_no_weights_of_its_own(model):
    assert {name.split(".")[0] for name in model.state_dict()} == {"model"}


def test_a_batch_gives_what_single_pictures_give(model, picture):
    model = model.double()
    pictures = picture(96, 64, batch=3).double()
    batch = model(pictures)
    for i in range(3):
        single = model(pictures[i : i + 1])
        assert torch.allclose(batch.logits[i], single.logits[0], atol=1e-10)
        assert torch.allclose(batch.pred_boxes[i], single.pred_boxes[0], atol=1e-12)


@pytest.mark.parametrize("size", [(32, 96), (64, 64), (160, 64), (96, 256)])
def test_any_multiple_of_32_is_a_size(model, picture, size):
    output = model(picture(*size))
    assert output.logits.isfinite().all()
    assert output.logits.shape == (1, 10, 3)


@pytest.mark.parametrize("size", [(64, 100), (33, 64), (640, 639)])
def test_another_size_is_refused(model, size):
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]}.*multiples of 32"):
        model(torch.zeros(1, 3, *size))


def test_a_picture_too_small_for_its_queries_is_refused(tiny_config):
    model = RtDetrV2ForObjectDetection(replace(tiny_config, num_queries=22))
    with pytest.raises(ValueError, match="32x32 has 21 positions for 22 queries"):
        model(torch.zeros(1, 3, 32, 32))


def test_labels_give_the_same_answer_and_a_loss(model, picture, objects):
    x = picture(64, 64, batch=2)
    output = model(x, labels=[objects(2), objects(0)])
    assert output.loss.item() == pytest.approx(sum(t.item() for t in output.loss_dict.values()))
    assert torch.allclose(output.logits, model(x).logits, atol=1e-5)
    assert torch.allclose(output.pred_boxes, model(x).pred_boxes, atol=1e-6)
    with pytest.raises(ValueError, match="1 labels for 2 pictures"):
        model(x, labels=[objects(2)])


@pytest.mark.parametrize("size", [(64, 100), (32, 32)])
def test_another_size_is_refused_with_labels_too(model, objects, size):
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]}"):
        RtDetrV2ForObjectDetection(replace(model.config, num_queries=22))(
            torch.zeros(1, 3, *size), labels=[objects(1)]
        )


@pytest.mark.parametrize("method", ["default", "discrete"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_and_keeps_boxes_in_float32(
    tiny_config, randomise, picture, dtype, method
):
    config = replace(tiny_config, decoder_method=method, num_points=(4, 4, 4))
    model = randomise(RtDetrV2ForObjectDetection(config), size=(96, 96))
    x = picture(96, 96)
    exact = model.double().model(x.double())
    half = model.to(dtype).model(x.to(dtype))
    assert half.hidden_states[-1].dtype == dtype
    assert half.enc_topk_boxes.dtype == torch.float32
    for boxes in half.reference_boxes:
        assert boxes.dtype == torch.float32
        assert not torch.equal(boxes, boxes.to(dtype).float())  # finer than half precision
    scores, exact_scores = half.enc_topk_logits.amax(-1), exact.enc_topk_logits.amax(-1)
    assert (scores.double() - exact_scores).abs().median() < 0.15
    nearest = torch.cdist(half.reference_boxes[-1][0].double(), exact.reference_boxes[-1][0], p=1)
    assert nearest.amin(-1).median() < 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_runs_and_keeps_boxes_in_float32(model, picture, dtype):
    with torch.autocast("cpu", dtype):
        output = model(picture(64, 64, batch=2))
    assert output.logits.dtype == dtype
    assert output.pred_boxes.dtype == torch.float32
    (output.logits.float().sum() + output.pred_boxes.sum()).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_full_precision_stays_what_it_is(model, picture, dtype):
    output = model.to(dtype)(picture(64, 64).to(dtype))
    assert output.logits.dtype == output.pred_boxes.dtype == dtype


def test_float32_is_float64_rounded(model, picture, aligned):
    x = picture(96, 128)
    single = model(x)
    double = model.double()(x.double())
    logits, boxes, _ = aligned(
        single.logits[0], single.pred_boxes[0], double.logits[0], double.pred_boxes[0]
    )
    assert logits.max() < 1e-4
    assert boxes.max() < 1e-5


def test_eval_idx_answers_as_a_decoder_cut_there(tiny_config, picture, randomise):
    whole = randomise(
        RtDetrV2ForObjectDetection(replace(tiny_config, decoder_layers=4, eval_idx=1))
    )
    cut = RtDetrV2ForObjectDetection(replace(tiny_config, decoder_layers=2)).eval()
    missing, _ = cut.load_state_dict(whole.state_dict(), strict=False)
    x = picture(64, 64)
    assert missing == []
    assert torch.equal(whole(x).logits, cut(x).logits)
    assert torch.equal(whole(x).pred_boxes, cut(x).pred_boxes)


@pytest.mark.parametrize(
    "changes",
    [
        {"query_select_method": "one2many"},
        {"query_select_method": "agnostic"},
        {"learn_initial_query": True},
        {"decoder_method": "discrete"},
        {"num_points": (3, 6, 3)},
        {"num_points": (3, 6, 3), "decoder_method": "discrete"},
        {"encode_proj_layers": (1, 2)},
        {"hidden_expansion": 1.0},
        {"d_model": 48},
        {"backbone_config": CSPNetConfig(embedding_size=8, depths=(1, 1, 1, 1))},
        {
            "backbone_config": HGNetV2Config(
                stem=(3, 8, 8),
                stages=((8, 8, 16, 1), (16, 8, 16, 2), (16, 8, 24, 1), (24, 8, 32, 1)),
            ),
            "freeze_backbone_batch_norms": True,
        },
    ],
    ids=str,
)
def test_every_choice_works_from_picture_to_boxes(tiny_config, picture, randomise, changes):
    model = randomise(RtDetrV2ForObjectDetection(replace(tiny_config, **changes)), size=(64, 64))
    one, other = model(picture(64, 96, batch=2, seed=4)).logits
    assert one.shape == (10, 3)
    assert (one - other).abs().max() > 1e-3


class _Tensors(nn.Module):
    """What tracing wants: tensors out."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        output = self.model(pixel_values)
        return output.logits, output.pred_boxes


@pytest.mark.parametrize("method", ["default", "discrete"])
def test_the_graph_exports_with_any_batch_size(tiny_config, randomise, picture, method):
    config = replace(tiny_config, decoder_method=method, decoder_layers=1)
    model = randomise(RtDetrV2ForObjectDetection(config), size=(64, 64))
    batch = torch.export.Dim("batch", min=1, max=16)
    program = torch.export.export(
        _Tensors(model), (picture(64, 96, batch=2),), dynamic_shapes=({0: batch},)
    )
    for n in (1, 5):
        x = picture(64, 96, batch=n, seed=n)
        for exported, expected in zip(program.module()(x), _Tensors(model)(x), strict=True):
            assert torch.allclose(exported, expected, atol=1e-5)


@pytest.mark.filterwarnings(
    "ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning"
)
@pytest.mark.parametrize("method", ["default", "discrete"])
def test_the_graph_traces_with_any_batch_size(tiny_config, randomise, picture, method):
    config = replace(tiny_config, decoder_method=method, decoder_layers=1)
    model = randomise(RtDetrV2ForObjectDetection(config), size=(64, 64))
    traced = torch.jit.trace(_Tensors(model), (picture(64, 96),), check_trace=False)
    x = picture(64, 96, batch=3, seed=2)
    for answer, expected in zip(traced(x), _Tensors(model)(x), strict=True):
        assert torch.allclose(answer, expected, atol=1e-5)


def test_gradients_reach_every_weight_that_trains(tiny_config, picture, randomise):
    model = randomise(
        RtDetrV2ForObjectDetection(replace(tiny_config, freeze_backbone_batch_norms=False))
    )
    output = model.train().model(picture(64, 64, batch=2))
    heads = model.model.decoder.dec_score_head
    scores = [head(hidden) for head, hidden in zip(heads, output.hidden_states, strict=True)]
    loss = sum(x.square().sum() for x in (*scores, *output.reference_boxes))
    (loss + output.enc_topk_logits.square().sum() + output.enc_topk_boxes.square().sum()).backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {"model.decoder.denoising_class_embed.weight"}


def test_a_variant_can_be_built_without_values_and_filled_later():
    config = RtDetrV2Config(num_labels=2, num_queries=10)
    source = RtDetrV2ForObjectDetection(config)
    with torch.device("meta"):
        target = RtDetrV2ForObjectDetection(config)
    target.load_state_dict(source.state_dict(), assign=True)
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(target.eval()(x).logits, source.eval()(x).logits)
    assert not target.model.backbone.conv1[0].conv.weight.requires_grad
