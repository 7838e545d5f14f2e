import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rtdetrv2_cli.model.config import RtDetrV2Config
from rtdetrv2_cli.model.decoder import Answer, TrainingSteps
from rtdetrv2_cli.model.loss import losses, total
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.model.targets import Targets

LN2 = math.log(2)
NOTHING = {"class_labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)}


@pytest.fixture(autouse=True)
def seed(restore_rng):
    torch.manual_seed(0)


@pytest.fixture
def network(tiny_config, randomise):
    """A tiny network that trains."""

    def make(**changes):
        config = replace(tiny_config, **changes)
        return randomise(RtDetrV2ForObjectDetection(config), size=(64, 64)).train()

    return make


def _numbers(terms) -> dict[str, float]:
    return {name: term.item() for name, term in terms.items()}


def _untrained(model) -> set[str]:
    """The parameters that should train and have no gradient, or one that is not finite."""
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        and (parameter.grad is None or not parameter.grad.isfinite().all())
    }


def _judge(logits, boxes, *labels, **changes) -> dict[str, float]:
    """Terms of one layer's answer, which is also the encoder's."""
    answer = Answer(torch.tensor(logits), torch.tensor(boxes))
    config = RtDetrV2Config(num_labels=answer.logits.shape[-1], **changes)
    targets = Targets.from_labels(labels, config.num_labels, device=torch.device("cpu"))
    return _numbers(losses(TrainingSteps(answer, [answer], []), targets, None, config))


def _labels(class_ids, boxes, **more) -> dict[str, Tensor]:
    return {"class_labels": torch.tensor(class_ids), "boxes": torch.tensor(boxes), **more}


# what the terms are


def test_terms_are_three_for_each_layer_twice_and_for_the_selection(network, picture, objects):
    output = network(decoder_layers=3)(picture(64, 64, batch=2), [objects(2), objects(1)])
    suffixes = ("", "_aux_0", "_aux_1", "_enc_0", "_dn_0", "_dn_1", "_dn_2")
    kinds = ("loss_vfl", "loss_bbox", "loss_giou")
    assert set(output.loss_dict) == {kind + suffix for suffix in suffixes for kind in kinds}
    assert len(output.loss_dict) == 3 * (2 * 3 + 1)
    assert output.loss.item() == pytest.approx(sum(_numbers(output.loss_dict).values()))
    assert all(term > 0 for term in _numbers(output.loss_dict).values())


@pytest.mark.parametrize("layers", [1, 4])
def test_their_number_follows_that_of_the_layers(network, picture, objects, layers):
    output = network(decoder_layers=layers)(picture(64, 64), [objects(2)])
    assert len(output.loss_dict) == 3 * (2 * layers + 1)


def test_an_answer_is_judged_by_varifocal_l1_and_giou():
    """One query is half the object beside it, the other is background; all scores are 0.5."""
    terms = _judge(
        [[[0.0, 0.0], [0.0, 0.0]]],
        [[[0.5, 0.4, 0.2, 0.2], [0.8, 0.8, 0.1, 0.1]]],
        _labels([1], [[0.5, 0.5, 0.2, 0.4]]),
    )
    background = 0.75 * 0.5**2 * LN2
    assert terms["loss_vfl"] == pytest.approx(0.5 * LN2 + 3 * background)
    assert terms["loss_bbox"] == pytest.approx(5 * (0.1 + 0.2))
    assert terms["loss_giou"] == pytest.approx(2 * (1 - 0.5))
    assert terms["loss_vfl_enc_0"] == pytest.approx(terms["loss_vfl"])


def test_each_weight_and_focal_number_has_its_place():
    terms = _judge(
        [[[0.0, 0.0], [0.0, 0.0]]],
        [[[0.5, 0.4, 0.2, 0.2], [0.8, 0.8, 0.1, 0.1]]],
        _labels([1], [[0.5, 0.5, 0.2, 0.4]]),
        weight_loss_vfl=3.0,
        weight_loss_bbox=7.0,
        weight_loss_giou=11.0,
        focal_loss_alpha=0.5,
        focal_loss_gamma=3.0,
    )
    assert terms["loss_vfl"] == pytest.approx(3 * (0.5 * LN2 + 3 * 0.5 * 0.5**3 * LN2))
    assert terms["loss_bbox"] == pytest.approx(7 * (0.1 + 0.2))
    assert terms["loss_giou"] == pytest.approx(11 * (1 - 0.5))


def test_a_perfect_answer_costs_nothing():
    box = [0.25, 0.5, 0.5, 0.25]
    terms = _judge([[[30.0, -30.0]]], [[box]], _labels([0], [box]))
    assert sum(terms.values()) < 1e-6


def test_terms_are_divided_by_the_number_of_objects_and_by_one_at_least(network, picture, objects):
    """So that a batch weighs as much as its pictures together."""
    model, pixels = network().double().eval(), picture(64, 64, batch=4).double()
    labels = [objects(n, seed=n) for n in (3, 0, 1, 2)]
    together = _numbers(model(pixels, labels).loss_dict)
    alone = [_numbers(model(pixels[i : i + 1], labels[i : i + 1]).loss_dict) for i in range(4)]
    for name, term in together.items():
        sums = [n * terms[name] for n, terms in zip((3, 1, 1, 2), alone, strict=True)]
        assert 6 * term == pytest.approx(sum(sums), rel=1e-9), name


def test_terms_of_noised_queries_are_divided_by_their_groups_too(network, picture, objects):
    """Without noise every group is the same, so their number must not matter."""
    terms = [
        _numbers(model(picture(64, 64), [objects(3)]).loss_dict)
        for model in (
            network(num_denoising=count, label_noise_ratio=0.0, box_noise_scale=0.0)
            for count in (3, 12)
        )
    ]
    assert terms[0]["loss_vfl_dn_1"] > 0
    assert terms[0] == pytest.approx(terms[1], rel=1e-4)


_PROCESS = """
import sys, torch
from torch import distributed as dist
from rtdetrv2_cli.model.config import RtDetrV2Config
from rtdetrv2_cli.model.decoder import Answer, TrainingSteps
from rtdetrv2_cli.model.loss import losses
from rtdetrv2_cli.model.targets import Targets

rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
answer = Answer(torch.zeros(1, 4, 2), torch.full((1, 4, 4), 0.5))
n = 3 * rank
labels = {"class_labels": torch.zeros(n, dtype=torch.int64), "boxes": torch.full((n, 4), 0.5)}
targets = Targets.from_labels([labels], 2, device=torch.device("cpu"))
terms = losses(TrainingSteps(answer, [answer], []), targets, None, RtDetrV2Config(num_labels=2))
print(terms["loss_vfl"].item())
dist.destroy_process_group()
"""


def test_processes_share_the_number_of_objects(tmp_path):
    """One has none and one has three: both divide by one and a half."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    first, second = (float(process.communicate(timeout=120)[0]) for process in running)
    background = 0.75 * 0.5**2 * LN2
    assert first == pytest.approx(8 * background / 1.5)
    assert second == pytest.approx((3 * LN2 + 5 * background) / 1.5)


# batches at the edge


def test_a_batch_without_objects_teaches_scores_and_reaches_every_weight(network, picture):
    model = network()
    output = model(picture(64, 64, batch=2), [NOTHING, NOTHING])
    output.loss.backward()
    terms = _numbers(output.loss_dict)
    assert len(terms) == 15
    assert output.loss.isfinite()
    assert all((term > 0) == name.startswith("loss_vfl") for name, term in terms.items())
    assert all(term == 0 for name, term in terms.items() if not name.startswith("loss_vfl"))
    assert _untrained(model) == set()


def test_a_batch_with_a_picture_without_objects_reaches_every_weight(network, picture, objects):
    model = network()
    output = model(picture(64, 64, batch=3), [objects(2), NOTHING, objects(1, seed=1)])
    output.loss.backward()
    assert output.loss.isfinite()
    assert _untrained(model) == set()
    assert model.model.decoder.denoising_class_embed.weight.grad.abs().max() > 0


def test_more_objects_than_queries_are_learned_as_far_as_there_are_queries(objects):
    boxes = torch.tensor([[0.1, 0.1, 0.1, 0.1], [0.5, 0.5, 0.1, 0.1], [0.9, 0.9, 0.1, 0.1]])
    terms = _judge([[[9.0], [9.0]]], [boxes[:2].tolist()], _labels([0, 0, 0], boxes.tolist()))
    assert terms["loss_bbox"] == pytest.approx(0, abs=1e-6)
    assert terms["loss_giou"] == pytest.approx(0, abs=1e-6)
    # two scores that shall be 1, for three objects
    assert terms["loss_vfl"] == pytest.approx(2 * math.log1p(math.exp(-9)) / 3, rel=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_queries": 3},
        {"num_queries": 1},
        {"num_labels": 1, "id2label": {0: "ball"}},
        {"query_select_method": "one2many"},
        {"query_select_method": "agnostic"},
        {"query_select_method": "agnostic", "num_labels": 1, "id2label": {0: "ball"}},
        {"learn_initial_query": True},
        {"decoder_method": "discrete"},
        {"num_denoising": 1},
        {"decoder_layers": 1},
        {"decoder_layers": 3, "eval_idx": 0},
        {"look_forward_twice": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("counts", [(5, 0), (0, 0), (1, 4)], ids=str)
def test_every_choice_trains_every_weight_that_shall_train(
    network, picture, objects, changes, counts
):
    model = network(**changes)
    labels = [objects(n, num_labels=model.config.num_labels, seed=n) for n in counts]
    output = model(picture(64, 64, batch=2), labels)
    output.loss.backward()
    assert output.loss.isfinite()
    assert _untrained(model) == set()


@pytest.mark.parametrize(
    "box",
    [
        (0.5, 0.5, 0.0, 0.0),
        (0.5, 0.5, 0.3, 0.0),
        (0.0, 0.0, 0.2, 0.2),
        (1.1, 0.5, 0.4, 0.2),
        (1.5, -0.5, 0.1, 0.1),
        (0.5, 0.5, 3.0, 3.0),
        (0.5, 0.5, 1.0, 1.0),
    ],
    ids=str,
)
def test_boxes_beyond_the_picture_and_of_no_extent_teach_finite_gradients(network, picture, box):
    model = network()
    output = model(picture(64, 64), [_labels([0, 2], [box, (0.4, 0.4, 0.2, 0.2)])])
    output.loss.backward()
    assert all(math.isfinite(term) for term in _numbers(output.loss_dict).values())
    assert _untrained(model) == set()


def test_a_box_of_no_extent_is_found_but_its_score_is_not_taught():
    """No box overlaps it, so the quality of every answer is 0, and with it the weight."""
    terms = _judge([[[0.0]]], [[[0.5, 0.5, 0.2, 0.2]]], _labels([0], [[0.5, 0.5, 0.0, 0.0]]))
    assert terms["loss_vfl"] == 0
    assert terms["loss_bbox"] == pytest.approx(5 * 0.4)
    assert terms["loss_giou"] == pytest.approx(2 * 1)


def test_equal_objects_teach_two_queries():
    box = [0.5, 0.5, 0.2, 0.2]
    terms = _judge([[[0.0], [0.0], [0.0]]], [[box] * 3], _labels([0, 0], [box] * 2))
    assert terms["loss_vfl"] == pytest.approx((2 * LN2 + 0.75 * 0.5**2 * LN2) / 2)


def test_class_agnostic_selection_does_not_care_about_classes(network, picture):
    model = network(query_select_method="agnostic").eval()
    boxes = [[0.3, 0.3, 0.2, 0.2], [0.6, 0.6, 0.3, 0.3]]
    one, other = (
        _numbers(model(picture(64, 64), [_labels(ids, boxes)]).loss_dict)
        for ids in ([0, 1], [2, 0])
    )
    same = {name for name, term in one.items() if term == other[name]}
    assert same >= {"loss_vfl_enc_0", "loss_bbox_enc_0", "loss_giou_enc_0"}
    assert same.isdisjoint({"loss_vfl", "loss_vfl_aux_0"})


def test_class_agnostic_selection_is_judged_as_one_class():
    answer = Answer(torch.zeros(1, 2, 1), torch.tensor([[[0.5, 0.5, 0.2, 0.2]] * 2]))
    layer = Answer(torch.zeros(1, 2, 4), answer.boxes)
    targets = Targets.from_labels(
        [_labels([3], [[0.5, 0.5, 0.2, 0.2]])], 4, device=torch.device("cpu")
    )
    config = RtDetrV2Config(num_labels=4, query_select_method="agnostic")
    terms = _numbers(losses(TrainingSteps(answer, [layer], []), targets, None, config))
    background = 0.75 * 0.5**2 * LN2
    assert terms["loss_vfl_enc_0"] == pytest.approx(LN2 + background)
    assert terms["loss_vfl"] == pytest.approx(LN2 + 7 * background)


def test_learned_queries_learn(network, picture, objects):
    model = network(learn_initial_query=True)
    model(picture(64, 64), [objects(3)]).loss.backward()
    assert model.model.decoder.tgt_embed.weight.grad.norm() > 0


def test_the_discrete_sampler_leaves_its_offsets_alone(network, picture, objects):
    model = network(decoder_method="discrete")
    model(picture(64, 64), [objects(3)]).loss.backward()
    still = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert still == {
        f"model.decoder.decoder.layers.{i}.cross_attn.sampling_offsets.{kind}"
        for i in range(2)
        for kind in ("weight", "bias")
    }


# ignored regions

REGION = torch.tensor([[0.25, 0.25, 0.5, 0.5]])  # the upper left quarter
INSIDE, ACROSS, MOSTLY, OUTSIDE = (
    [0.2, 0.2, 0.2, 0.2],
    [0.55, 0.2, 0.4, 0.2],  # three eighths of it inside
    [0.45, 0.2, 0.2, 0.2],  # three quarters of it inside
    [0.8, 0.8, 0.2, 0.2],
)


def _background(boxes, ignored: Tensor | None = None) -> float:
    """How many of the boxes, all of score 0.5, are taught to be background."""
    more = {} if ignored is None else {"ignored": ignored}
    terms = _judge([[[0.0]] * len(boxes)], [boxes], NOTHING | more)
    assert terms["loss_vfl"] == terms["loss_vfl_enc_0"]
    return terms["loss_vfl"] / (0.75 * 0.5**2 * LN2)


@pytest.mark.parametrize(
    ("box", "taught"), [(INSIDE, 0), (MOSTLY, 0), (ACROSS, 1), (OUTSIDE, 1)], ids=str
)
def test_a_background_query_mostly_within_an_ignored_region_is_taught_nothing(box, taught):
    assert _background([box], REGION) == pytest.approx(taught)
    assert _background([box]) == pytest.approx(1)
    assert _background([box, OUTSIDE], REGION) == pytest.approx(taught + 1)


def test_one_region_must_hold_most_of_a_box():
    halves = torch.tensor([[0.0625, 0.5, 0.125, 1.0], [0.1875, 0.5, 0.125, 1.0]])
    box = [0.125, 0.5, 0.25, 0.25]
    assert _background([box], halves) == pytest.approx(1)
    assert _background([box], torch.cat([halves, torch.tensor([[0.125, 0.5, 0.25, 1.0]])])) == 0


def test_regions_belong_to_their_picture():
    answer = Answer(torch.zeros(3, 1, 1), torch.tensor([[INSIDE]] * 3))
    two = torch.cat([REGION, REGION])
    labels = [NOTHING, NOTHING | {"ignored": REGION}, NOTHING | {"ignored": two}]
    targets = Targets.from_labels(labels, 1, device=torch.device("cpu"))
    config = RtDetrV2Config(num_labels=1)
    terms = losses(TrainingSteps(answer, [answer], []), targets, None, config)
    assert terms["loss_vfl"].item() == pytest.approx(0.75 * 0.5**2 * LN2)


def test_a_query_that_found_an_object_in_an_ignored_region_is_taught_all_classes():
    with_region = _judge(
        [[[0.0, 0.0], [0.0, 0.0]]],
        [[INSIDE, INSIDE]],
        _labels([1], [INSIDE]) | {"ignored": REGION},
    )
    background = 0.75 * 0.5**2 * LN2
    assert with_region["loss_vfl"] == pytest.approx(LN2 + background)
    without = _judge([[[0.0, 0.0], [0.0, 0.0]]], [[INSIDE, INSIDE]], _labels([1], [INSIDE]))
    assert without["loss_vfl"] == pytest.approx(LN2 + 3 * background)
    assert with_region["loss_bbox"] == without["loss_bbox"]
    assert with_region["loss_giou"] == without["loss_giou"]


def test_ignored_regions_of_no_extent_change_nothing(network, picture, objects):
    model = network().eval()
    labels = objects(2)
    plain = _numbers(model(picture(64, 64), [labels]).loss_dict)
    for ignored in (torch.zeros(0, 4), torch.tensor([[0.5, 0.5, 0.0, 0.0]])):
        with_them = model(picture(64, 64), [labels | {"ignored": ignored}]).loss_dict
        assert _numbers(with_them) == plain


def test_a_picture_that_is_ignored_altogether_teaches_noised_queries_only_positives(
    network, picture, objects
):
    model = network()
    everything = torch.tensor([[0.5, 0.5, 2.0, 2.0]])
    torch.manual_seed(0)
    output = model(picture(64, 64), [objects(3) | {"ignored": everything}])
    output.loss.backward()
    torch.manual_seed(0)
    plain = model(picture(64, 64), [objects(3)])
    terms, more = _numbers(output.loss_dict), _numbers(plain.loss_dict)
    for name, term in terms.items():
        if name.startswith("loss_vfl"):
            assert 0 < term < more[name], name
        else:
            assert term == pytest.approx(more[name], rel=1e-3), name
    assert _untrained(model) == set()


# calling the model


def test_without_training_labels_give_a_loss_without_noised_queries(network, picture, objects):
    model, pixels, labels = network().eval(), picture(64, 64), [objects(3)]
    output, again = model(pixels, labels), model(pixels, labels)
    assert len(output.loss_dict) == 9
    assert not any("_dn_" in name for name in output.loss_dict)
    assert _numbers(output.loss_dict) == _numbers(again.loss_dict)
    plain = model(pixels)
    assert torch.allclose(output.logits, plain.logits, atol=1e-5)
    assert torch.allclose(output.pred_boxes, plain.pred_boxes, atol=1e-6)


def test_noised_queries_change_no_other_term(network, picture, objects):
    model, pixels, labels = network().double(), picture(64, 64).double(), [objects(3)]
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.eval()
    with_them = _numbers(model(pixels, labels).loss_dict)
    without = _numbers(model.eval()(pixels, labels).loss_dict)
    assert with_them.keys() > without.keys()
    assert without == pytest.approx({name: with_them[name] for name in without}, rel=1e-9)


def test_without_denoising_training_draws_no_random_number(network, picture, objects):
    model = network(num_denoising=0)
    state = torch.get_rng_state()
    output = model(picture(64, 64), [objects(3)])
    assert torch.equal(torch.get_rng_state(), state)
    assert len(output.loss_dict) == 9


def test_the_answer_is_the_evaluated_layers_and_the_loss_is_of_all(network, picture, objects):
    model = network(decoder_layers=3, eval_idx=0).eval()
    output = model(picture(64, 64), [objects(3)])
    assert torch.allclose(output.logits, model(picture(64, 64)).logits, atol=1e-5)
    assert len(output.loss_dict) == 12
    output.loss.backward()
    assert model.model.decoder.dec_score_head[2].weight.grad.norm() > 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "0 labels for 2 pictures"),
        ([NOTHING], "1 labels for 2 pictures"),
        (
            [NOTHING, _labels([3], [[0.5, 0.5, 0.1, 0.1]])],
            r"picture 1 of the batch has a class outside 0\.\.2: \[3\]",
        ),
        ([_labels([-1], [[0.5, 0.5, 0.1, 0.1]]), NOTHING], r"class outside 0\.\.2: \[-1\]"),
        (
            [_labels([0, 1], [[0.5, 0.5, 0.1, 0.1]]), NOTHING],
            r"picture 0 of the batch has class_labels \(2,\) and boxes \(1, 4\): expected",
        ),
        ([_labels([[0]], [[0.5, 0.5, 0.1, 0.1]]), NOTHING], r"class_labels \(1, 1\)"),
        ([_labels([0], [0.5, 0.5, 0.1, 0.1]), NOTHING], r"boxes \(4,\): expected \[n\] and \[n, 4"),
        (
            [_labels([0], [[0.5, 0.5, -0.1, 0.1]]), NOTHING],
            r"picture 0 of the batch has a box that is not finite or of negative extent: \[\[0\.5",
        ),
        ([_labels([0], [[math.nan, 0.5, 0.1, 0.1]]), NOTHING], "a box that is not finite"),
        ([_labels([0], [[0.5, 0.5, math.inf, 0.1]]), NOTHING], "a box that is not finite"),
        (
            [NOTHING, NOTHING | {"ignored": torch.zeros(3)}],
            r"picture 1 of the batch has ignored regions \(3,\): expected \[k, 4\]",
        ),
        (
            [NOTHING | {"ignored": torch.full((2, 4), math.nan)}, NOTHING],
            r"picture 0 of the batch has ignored regions \(2, 4\): .* finite",
        ),
    ],
)
def test_labels_that_make_no_sense_are_refused_with_their_picture(
    network, picture, labels, message
):
    with pytest.raises(ValueError, match=message):
        network()(picture(64, 64, batch=2), labels)


def test_a_batch_of_no_pictures_is_refused(network, picture):
    with pytest.raises(ValueError, match="a batch of no pictures has no loss"):
        network()(picture(64, 64)[:0], [])


@pytest.mark.parametrize(
    ("optimizer", "rate"), [(torch.optim.SGD, 1e-3), (torch.optim.AdamW, 2e-3)]
)
def test_ten_steps_make_the_loss_smaller(tiny_config, picture, objects, optimizer, rate):
    model = RtDetrV2ForObjectDetection(tiny_config).train()
    steps = optimizer(model.parameters(), lr=rate)
    pixels, labels = picture(64, 64, batch=2), [objects(2), objects(1, seed=1)]
    seen = []
    for _ in range(10):
        steps.zero_grad()
        output = model(pixels, labels)
        output.loss.backward()
        steps.step()
        seen.append(output.loss.item())
    assert seen[-1] < 0.95 * seen[0]
    assert all(math.isfinite(loss) for loss in seen)


def test_bfloat16_autocast_gives_nearly_the_loss_of_float32(network, picture, objects):
    model, pixels = network(), picture(64, 64, batch=2)
    labels = [objects(3), objects(1, seed=1)]
    torch.manual_seed(0)
    exact = model(pixels, labels)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(pixels, labels)
    output.loss.backward()
    assert output.loss.dtype == output.logits.dtype == output.pred_boxes.dtype == torch.float32
    assert all(math.isfinite(term) for term in _numbers(output.loss_dict).values())
    assert _untrained(model) == set()
    assert output.loss.item() == pytest.approx(exact.loss.item(), rel=0.03)
    assert _numbers(output.loss_dict) == pytest.approx(_numbers(exact.loss_dict), rel=0.2)


def test_terms_are_summed_to_the_loss():
    terms = {"one": torch.tensor(1.5), "two": torch.tensor(2.25)}
    assert total(terms).item() == 3.75
