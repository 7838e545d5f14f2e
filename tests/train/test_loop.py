import io
import math

import numpy as np
import pytest
import torch

from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.train.data.loader import Order, TrainingBatch, multi_scale_size
from rtdetrv2_cli.train.learner import LOSS_TERMS, Learner
from rtdetrv2_cli.train.loop import EpochDone, History, StepDone, train
from rtdetrv2_cli.train.measure.evaluate import Evaluation
from rtdetrv2_cli.train.recipe import Group, Recipe, multi_scale_sizes
from rtdetrv2_cli.types import Size

RECIPE = Recipe(groups=(Group("backbone", 1e-5),), warmup_steps=3, schedule="cosine")
ORDER = Order(5, 2, seed=4)
"""Two steps in an epoch."""

pytestmark = pytest.mark.usefixtures("restore_rng")


def batches(start=0):
    """The batches of a run from a step on; each has its own object."""
    for step in range(start, 100):
        generator = torch.Generator().manual_seed(step)
        pixels = torch.randint(0, 256, (2, 3, 64, 64), generator=generator, dtype=torch.uint8)
        box = torch.rand(1, 4, generator=generator) / 2 + 0.2
        labels = {"class_labels": torch.tensor([step % 3]), "boxes": box}
        yield TrainingBatch(pixels, [labels, labels])


@pytest.fixture
def make_learner(tiny_config):
    def make(seed=0, steps=6):
        torch.manual_seed(seed)
        return Learner(RtDetrV2ForObjectDetection(tiny_config), RECIPE, steps=steps, seed=2)

    return make


def evaluation_of(ap):
    nothing = np.zeros((0, 0))
    return Evaluation(
        {"ap": ap, "ap50": ap + 0.1}, (), nothing, nothing.astype(np.int64), 0.5, 0.0, (), 1, 1, 1
    )


def measuring(*figures):
    """An evaluation that gives these AP in turn; `networks` are those it was asked about."""
    following = iter(figures)

    def evaluate(network):
        evaluate.networks.append(network)
        return evaluation_of(next(following))

    evaluate.networks = []
    return evaluate


def run(learner, history=None, *, epochs=3, **options):
    settings = {"size": None, "stop_epoch": epochs, "evaluate": None} | options
    if history is None:
        history = History()
    return train(learner, batches(learner.step), ORDER, history, epochs=epochs, **settings)


def ends(events):
    return [event for event in events if isinstance(event, EpochDone)]


def test_every_step_and_every_epoch_is_told(make_learner):
    learner = make_learner()
    events = []
    for event in run(learner):
        if isinstance(event, StepDone):
            assert learner.step == event.step
        events.append(event)
    assert [type(event) for event in events] == [StepDone, StepDone, EpochDone] * 3
    assert [event.epoch for event in events] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [event.step for event in steps] == [1, 2, 3, 4, 5, 6]
    assert {event.steps for event in steps} == {6}
    assert all(tuple(event.losses) == LOSS_TERMS for event in steps)
    assert len({event.losses["loss"] for event in steps}) == 6


def test_a_row_has_the_means_of_its_epoch_and_the_rates(make_learner):
    learner, history = make_learner(), History()
    losses = []
    for event in run(learner, history, evaluate=measuring(0.2, 0.3, 0.4)):
        if isinstance(event, StepDone):
            losses.append(event.losses)
            continue
        row = event.row
        assert row is history.rows[-1]
        assert (row["epoch"], row["step"]) == (event.epoch + 1, learner.step)
        for term in LOSS_TERMS:
            assert row[term] == pytest.approx((losses[-2][term] + losses[-1][term]) / 2)
        assert [row["lr_0"], row["lr_1"]] == learner.rates
        assert row["seconds"] > 0
        assert (row["ap"], row["ap50"]) == (event.evaluation.figures["ap"], row["ap"] + 0.1)
        assert all(type(value) is float for value in row.values())
    assert [row["epoch"] for row in history.rows] == [1, 2, 3]
    assert (history.sums, history.steps, history.seconds) == ({}, 0, 0)


def test_the_best_epoch_is_the_one_with_the_highest_ap(make_learner):
    history = History()
    events = ends(
        run(make_learner(steps=10), history, epochs=5, evaluate=measuring(0, 0.3, 0.2, 0.3, 0.4))
    )
    assert [event.is_best for event in events] == [True, True, False, False, True]
    assert history.best == 0.4
    assert [event.evaluation.figures["ap"] for event in events] == [0, 0.3, 0.2, 0.3, 0.4]


def test_without_a_validation_part_the_last_epoch_is_the_best(make_learner):
    history = History()
    events = ends(run(make_learner(), history))
    assert [event.is_best for event in events] == [True] * 3
    assert [event.evaluation for event in events] == [None] * 3
    assert history.best == -math.inf
    assert not any("ap" in row for row in history.rows)


def test_without_objects_to_find_the_last_epoch_is_the_best(make_learner):
    history = History()
    nothing = [math.nan] * 3
    events = ends(run(make_learner(), history, evaluate=measuring(*nothing)))
    assert [event.is_best for event in events] == [True] * 3
    assert history.best == -math.inf


@pytest.mark.parametrize(
    ("every", "measured"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (3, [2, 4]), (5, [4]), (9, [4])]
)
def test_the_average_is_measured_when_due_and_after_the_last_epoch(every, measured, make_learner):
    learner, history = make_learner(steps=10), History()
    evaluate = measuring(*[0.5 - 0.1 * n for n in range(5)])
    events = ends(run(learner, history, epochs=5, evaluate=evaluate, eval_every=every))
    assert [event.epoch for event in events if event.evaluation] == measured
    assert [i for i, row in enumerate(history.rows) if "ap" in row] == measured
    assert all(network is learner.average.network for network in evaluate.networks)
    # what was not measured is not the best: here it is the first that was
    assert [event.epoch for event in events if event.is_best] == measured[:1]


def test_batches_are_of_many_scales_until_the_stop_epoch(make_learner):
    learner = make_learner()
    seen = []
    learner.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2:]))
    list(run(learner, size=Size(96, 160), stop_epoch=2))
    sizes = multi_scale_sizes(Size(96, 160))
    expected = [multi_scale_size(sizes, 2, step) for step in range(4)]
    assert seen == [*expected, (64, 64), (64, 64)]  # pictures come as 64x64
    assert {width - height for height, width in expected} != {0}
    assert len(set(expected)) > 1


FIGURES = (0.3, 0.5, 0.4)
SCALES = {"size": Size(96, 96), "stop_epoch": 2}


@pytest.fixture(scope="module")
def whole(tiny_config):
    """A run without a break: learner, history, events."""
    torch.manual_seed(0)
    learner = Learner(RtDetrV2ForObjectDetection(tiny_config), RECIPE, steps=6, seed=2)
    history = History()
    return learner, history, list(run(learner, history, evaluate=measuring(*FIGURES), **SCALES))


@pytest.mark.parametrize("stop", [1, 2, 3, 5, 6, 8, 9])
def test_a_run_that_was_left_goes_on_as_if_it_had_not_been(stop, whole, make_learner):
    first, started = make_learner(), History()
    left = run(first, started, evaluate=measuring(*FIGURES), **SCALES)
    before = [next(left) for _ in range(stop)]
    left.close()
    file = io.BytesIO()
    torch.save({"learner": first.state(), "history": started.state()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)

    second, going_on = make_learner(seed=5), History(**state["history"])
    second.restore(state["learner"])
    rest = measuring(*FIGURES[len(going_on.rows) :])
    after = list(run(second, going_on, evaluate=rest, **SCALES))
    learner, history, events = whole
    assert [told(event) for event in before + after] == [told(event) for event in events]
    assert [without_time(row) for row in going_on.rows] == [without_time(r) for r in history.rows]
    assert going_on.best == 0.5
    for ours, theirs in (
        (second.model, learner.model),
        (second.average.network, learner.average.network),
    ):
        others = theirs.state_dict()
        assert all(torch.equal(tensor, others[name]) for name, tensor in ours.state_dict().items())


def told(event):
    if isinstance(event, StepDone):
        return event
    return event.epoch, without_time(event.row), event.evaluation.figures, event.is_best


def without_time(row):
    assert row["seconds"] > 0
    return row | {"seconds": 0}


def test_a_run_that_is_complete_has_nothing_to_tell(make_learner):
    learner, history = make_learner(), History()
    list(run(learner, history))
    before = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    assert list(run(learner, history)) == []
    assert len(history.rows) == 3
    assert all(torch.equal(t, before[name]) for name, t in learner.model.state_dict().items())


def test_a_history_counts_steps_of_the_epoch_at_hand():
    history = History()
    history.add({"loss": 2.0, "loss_vfl": 1.0, "loss_bbox": 0.5, "loss_giou": 0.25}, 3.0)
    history.add({"loss": 4.0, "loss_vfl": 2.0, "loss_bbox": 0.5, "loss_giou": 0.75}, 2.0)
    again = History(**history.state())
    row = again.close_epoch({"ap": 0.7})
    assert row == {
        **{"epoch": 1, "loss": 3, "loss_vfl": 1.5, "loss_bbox": 0.5, "loss_giou": 0.5},
        **{"seconds": 5, "ap": 0.7},
    }
    assert again.best == 0.7
