import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from math import nan

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from rtdetrv2_cli.analyse.chart import INK, new_figure, short, write_figure
from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.labels import COCO_NAMES
from rtdetrv2_cli.train.data.dataset import Dataset, Sample
from rtdetrv2_cli.train.measure.evaluate import ClassFigures, Evaluation, Miss, evaluate
from rtdetrv2_cli.train.plots import draw
from rtdetrv2_cli.train.plots.evaluation_charts import (
    class_ap_figure,
    confusion_figure,
    precision_recall_figure,
)
from rtdetrv2_cli.train.plots.picture_charts import (
    FOUND_COLOUR,
    TRUE_COLOUR,
    misses_figure,
    mosaic_figure,
)
from rtdetrv2_cli.train.plots.run_charts import (
    learning_rate_figure,
    losses_figure,
    scientific,
    validation_figure,
)
from rtdetrv2_cli.types import Detections, Size

NAMES = ("person", "car", "dog")
ODD = (
    "a$b^{$",
    "$x_1$ $",
    "价格 牌",
    "two\nlines\x00",
    "مرحبا",
    "",
    "very long " * 20,
    "<b>&\\frac",
)


def row(epoch, **more):
    losses = {"loss": 20 - epoch, "loss_vfl": 0.5, "loss_bbox": 0.3 - epoch / 100, "loss_giou": 0.6}
    return {"epoch": epoch, **losses, "lr": 1e-4, **more}


def validated(epoch, ap):
    sizes = {"ap_small": ap / 2, "ap_medium": ap, "ap_large": min(1, ap * 1.2)}
    return row(epoch, ap=ap, ap50=min(1, ap * 1.5), **sizes)


def evaluation(names=NAMES, aps=(0.5, 0.25, 0.75), *, confusion=None, misses=()):
    """Classes whose precision is 1 up to a recall of their AP50, which is 1.2 of their AP."""
    recall = np.linspace(0, 1, 101)
    aps = [aps[i % len(aps)] for i in range(len(names))]
    n = len(names)
    rows = [np.full(101, nan) if np.isnan(ap) else (recall < 1.2 * ap).astype(float) for ap in aps]
    classes = [
        ClassFigures(name, 0 if np.isnan(ap) else 10 + i, ap, 1.2 * ap, ap, ap, ap, ap, ap)
        for i, (name, ap) in enumerate(zip(names, aps, strict=True))
    ]
    return Evaluation(
        figures={"ap": nan},
        classes=tuple(classes),
        precision=np.array(rows).reshape(n, 101),
        confusion=np.eye(n + 1, dtype=np.int64) * 8 if confusion is None else np.array(confusion),
        confidence=0.5,
        f1=0.5,
        misses=tuple(misses),
        pictures=1,
        objects=1,
        detections=1,
    )


@pytest.fixture
def dataset(make_picture):
    """One grey picture of 200x300 with a person at the left and a car at the right."""
    path = make_picture("a.png", np.full((200, 300, 3), 128, np.uint8))
    boxes = np.array([[10, 50, 40, 150], [200, 100, 280, 160]], np.float32)
    marks = (np.zeros(2, np.bool_), np.ones(2, np.float32))
    sample = Sample(path, "a.png", Size(200, 300), boxes, np.array([0, 1]), *marks)
    return Dataset("val", NAMES, (sample,))


def found(*boxes, class_ids=(), scores=()):
    n = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(n, 4),
        np.array(scores or [0.9] * n, np.float32),
        np.array(class_ids or [0] * n, np.int64),
    )


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def outlines(axes):
    """Colour and box of every rectangle on a tile."""
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [
        (to_hex(box.get_edgecolor()), tuple(round(v) for v in box.get_bbox().extents))
        for box in boxes
    ]


def pixels(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def test_a_run_is_three_pictures(tmp_path):
    rows = [validated(epoch, 0.1 + epoch / 50) for epoch in range(20)]
    written = draw.plot_run(rows, tmp_path / "new" / "run", stop_epoch=15)
    assert [path.name for path in written] == ["losses.png", "learning_rate.png", "validation.png"]
    assert sorted((tmp_path / "new" / "run").iterdir()) == sorted(written)
    assert {pixels(path).shape for path in written} == {(675, 1200, 3)}


def test_the_end_of_strong_augmentation_is_seen_in_the_picture_of_a_run(tmp_path):
    rows = [row(epoch) for epoch in range(20)]
    before = pixels(draw.plot_run(rows, tmp_path)[0])
    assert not np.array_equal(before, pixels(draw.plot_run(rows, tmp_path, stop_epoch=15)[0]))


def test_losses_are_drawn_epoch_by_epoch():
    total, terms = losses_figure([row(0), row(1), row(2)]).axes
    [line] = total.lines
    assert line.get_xydata().tolist() == [[0, 20], [1, 19], [2, 18]]
    assert [line.get_label() for line in terms.lines] == ["class (VFL)", "box (L1)", "box (GIoU)"]
    assert terms.lines[1].get_ydata().tolist() == pytest.approx([0.3, 0.29, 0.28])


def test_the_end_of_strong_augmentation_is_marked_where_the_run_has_reached_it():
    rows = [row(epoch) for epoch in range(6)]
    marked = losses_figure(rows, stop_epoch=4)
    assert [set(axes.lines[-1].get_xdata()) for axes in marked.axes] == [{4}, {4}]
    assert texts(marked).count("strong augmentation ends") == 2
    for figure in (losses_figure(rows), losses_figure(rows, stop_epoch=50)):
        assert "strong augmentation ends" not in texts(figure)


def test_losses_that_are_no_numbers_are_left_out():
    rows = [row(0), row(1) | {"loss": nan}, row(2) | {"loss": float("inf")}, row(3)]
    total, _ = losses_figure(rows).axes
    assert total.lines[0].get_xdata().tolist() == [0, 3]


def test_a_single_epoch_is_a_visible_point():
    for figure in (losses_figure([row(5)], stop_epoch=5), validation_figure([validated(5, 0.4)])):
        axes = figure.axes[0]
        assert axes.lines[0].get_marker() == "o"
        assert axes.get_xlim() == (4.5, 5.5)


def test_labels_at_the_ends_of_lines_do_not_cover_one_another():
    rows = [row(0, ap=0.5, ap50=0.5, ap_small=0.5, ap_medium=0.001, ap_large=0.0)]
    figure = validation_figure(rows)
    places = sorted(text.get_position()[1] for text in figure.axes[0].texts)
    assert len(places) == 5
    assert np.diff(places).min() > 0.04
    assert 0 <= places[0] < places[-1] <= 1


def test_learning_rates_that_never_differ_share_a_line():
    rows = [{"epoch": i, "lr_0": 1e-5 * i, "lr_1": 1e-4 * i, "lr_2": 1e-4 * i} for i in range(3)]
    [axes] = learning_rate_figure(rows).axes
    assert [line.get_label() for line in axes.lines] == ["group 0", "groups 1, 2"]
    assert axes.lines[1].get_ydata().tolist() == pytest.approx([0, 1e-4, 2e-4])


def test_learning_rates_are_drawn_by_step_where_rows_tell_it():
    [axes] = learning_rate_figure([row(0, step=100), row(1, step=200)]).axes
    assert axes.lines[0].get_xdata().tolist() == [100, 200]
    assert axes.get_xlabel() == "step"


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1e-4, "1e-4"), (2.5e-5, "2.5e-5"), (0.01, "1e-2"), (1, "1e0")]
)
def test_a_learning_rate_is_written_as_people_do(value, text):
    assert scientific(value) == text


def test_validation_joins_the_epochs_that_have_figures_and_marks_the_best():
    rows = [validated(0, 0.1), row(1), validated(2, 0.4), row(3, ap=nan), validated(4, 0.3)]
    figure = validation_figure(rows)
    [axes] = figure.axes
    *lines, best = axes.lines
    assert lines[0].get_xydata().tolist() == [[0, 0.1], [2, 0.4], [4, 0.3]]
    assert best.get_xydata().tolist() == [[2, 0.4]]
    assert len(lines) == 5
    assert any("best AP 0.400 in epoch 2" in text for text in texts(figure))
    assert "AP  0.300" in texts(figure)


def test_sizes_without_objects_have_no_line():
    rows = [validated(epoch, 0.2) | {"ap_small": nan} for epoch in range(3)]
    assert not any("small" in text for text in texts(validation_figure(rows)))


@pytest.mark.parametrize("rows", [[], [{"epoch": 0}], [{"epoch": 0, "loss": nan, "ap": nan}]])
def test_a_run_without_figures_says_so(rows, tmp_path):
    assert "no epoch yet" in texts(losses_figure(rows))
    assert "no epoch yet" in texts(learning_rate_figure(rows))
    assert "not validated yet" in texts(validation_figure(rows))
    assert len(draw.plot_run(rows, tmp_path, stop_epoch=0)) == 3


def test_terms_without_a_total_are_drawn():
    figure = losses_figure([{"epoch": 0, "loss_vfl": 0.5}, {"epoch": 1, "loss_vfl": 0.4}])
    assert "not recorded" in texts(figure)
    assert len(figure.axes[1].lines) == 1


def test_each_class_has_its_curve_and_the_mean_is_thick():
    [axes] = precision_recall_figure(evaluation()).axes
    *curves, mean = axes.lines
    assert [curve.get_label() for curve in curves] == ["0.900  dog", "0.600  person", "0.300  car"]
    assert mean.get_label() == "0.600  mean"
    assert mean.get_linewidth() > curves[0].get_linewidth()
    assert to_hex(mean.get_color()) == INK
    assert np.allclose(mean.get_ydata()[[10, 45, 75]], [1, 2 / 3, 1 / 3])


def test_a_curve_ends_at_the_recall_that_is_not_reached():
    [axes] = precision_recall_figure(evaluation()).axes
    assert axes.lines[1].get_xdata()[-1] == pytest.approx(0.6)
    assert axes.lines[1].get_ydata()[-2:].tolist() == [1, 0]


def test_a_single_class_has_no_mean_beside_it():
    [axes] = precision_recall_figure(evaluation(("person",))).axes
    assert [line.get_label() for line in axes.lines] == ["0.600  person"]


def test_of_many_classes_the_best_and_the_worst_are_named():
    aps = [i / 100 for i in range(1, 81)]
    [axes] = precision_recall_figure(evaluation(COCO_NAMES, aps)).axes
    assert len(axes.lines) == 81
    named = [text.get_text().split("  ")[1] for text in axes.get_legend().get_texts()]
    assert named == [*COCO_NAMES[:-4:-1], *COCO_NAMES[2::-1], "mean"]


def test_classes_without_objects_are_left_out():
    figures = evaluation(aps=(0.5, nan, 0.75))
    [axes] = precision_recall_figure(figures).axes
    assert [line.get_label()[7:] for line in axes.lines] == ["dog", "person", "mean"]
    assert axes.lines[-1].get_label() == "0.750  mean"
    assert not any("car" in text for text in texts(class_ap_figure(figures)))


def bars(axes):
    return [[bar.get_width() for bar in group] for group in axes.containers]


def test_bars_are_as_long_as_ap_and_sorted():
    [axes] = class_ap_figure(evaluation()).axes
    assert bars(axes)[0] == pytest.approx([0.9, 0.6, 0.3])
    assert bars(axes)[1] == pytest.approx([0.75, 0.5, 0.25])
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["dog  (12)", "person  (10)", "car  (11)"]
    assert axes.yaxis_inverted()


def test_another_ap_changes_the_picture(tmp_path):
    one, other = evaluation(), evaluation(aps=(0.5, 0.26, 0.75))
    for plot in (draw.plot_class_ap, draw.plot_precision_recall):
        first, again = pixels(plot(one, tmp_path / "1.png")), pixels(plot(one, tmp_path / "2.png"))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, pixels(plot(other, tmp_path / "3.png")))


def test_of_very_many_classes_the_best_and_the_worst_have_bars():
    names = [f"class {i}" for i in range(300)]
    figure = class_ap_figure(evaluation(names, [i / 500 for i in range(300)]))
    [axes] = figure.axes
    lengths = bars(axes)[1]
    assert len(lengths) == 100
    assert (lengths[0], lengths[49], lengths[50]) == (299 / 500, 250 / 500, 49 / 500)
    assert "the 50 best and the 50 worst of 300" in texts(figure)


def test_confusions_are_shares_of_the_true_class_and_numbers():
    counts = [[6, 2, 0, 2], [0, 0, 0, 0], [1, 0, 999, 0], [3, 0, 1, 0]]
    figure = confusion_figure(evaluation(confusion=counts))
    [axes] = figure.axes
    shares = np.asarray(axes.collections[0].get_array())
    assert np.allclose(
        shares, [[0.6, 0.2, 0, 0.2], [0] * 4, [0.001, 0, 0.999, 0], [0.75, 0, 0.25, 0]]
    )
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells[0.5, 0.5] == "60%\n6"
    assert cells[3.5, 0.5] == "20%\n2"
    assert cells[0.5, 2.5] == "<1%\n1"
    assert len(cells) == 7
    assert axes.yaxis_inverted()
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == [*NAMES, "background"]


def test_of_very_many_classes_the_least_confused_share_a_row():
    n = 120
    counts = np.diag([5] * n + [0])
    counts[7, 3], counts[n, 119], counts[50, n] = 4, 2, 20_000
    [axes] = confusion_figure(evaluation([f"c{i}" for i in range(n)], confusion=counts)).axes
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert len(names) == 92
    assert {"c3", "c7", "c50", "c119"} <= set(names)
    assert names[-2:] == ["other classes", "background"]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells[90.5, 90.5] == str(5 * 30)
    assert cells[3.5, names.index("c7") + 0.5] == "4"
    assert cells[91.5, names.index("c50") + 0.5] == "20k"


def test_a_mosaic_shows_the_pictures_with_their_boxes_and_names():
    images = [np.full((64, 64, 3), i, np.uint8) for i in range(5)]
    boxes = [np.array([[10.0, 20, 50, 60]])] * 4 + [np.zeros((0, 4))]
    ids = [np.array([i]) for i in (0, 1, 2, 3)] + [np.zeros(0, np.int64)]
    figure = mosaic_figure(images, boxes, ids, NAMES, title="Epoch 3")
    assert [axes.images[0].get_array()[0, 0, 0] for axes in figure.axes] == [0, 1, 2, 3, 4]
    names = [[t.get_text() for t in axes.texts if t.get_text()] for axes in figure.axes]
    assert names == [["person"], ["car"], ["dog"], ["3"], []]
    drawn = [outlines(axes) for axes in figure.axes]
    assert [box for [(_, box)] in drawn[:4]] == [(10, 20, 50, 60)] * 4
    assert len({colour for [(colour, _)] in drawn[:4]}) == 4
    assert "Epoch 3" in texts(figure)


def test_names_of_a_crowd_do_not_cover_one_another():
    boxes = np.array([[20, 30, 40, 90], [22, 30, 60, 95], [24, 30, 44, 90], [20, 150, 60, 200]])
    blank = np.zeros((320, 320, 3), np.uint8)
    figure = mosaic_figure([blank], [boxes], [np.zeros(4, int)], NAMES, title="")
    [axes] = figure.axes
    assert len(outlines(axes)) == 4
    assert sum(text.get_text() == "person" for text in axes.texts) == 2


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 3), (300, 1, 3)])
def test_a_mosaic_takes_pictures_of_any_size(shape, tmp_path):
    height, width, _ = shape
    boxes = [np.array([[0.0, 0, width, height], [-9, -9, 999, 999]])]
    image = np.zeros(shape, np.uint8)
    path = tmp_path / "m.png"
    assert draw.plot_mosaic([image], boxes, [np.array([0, 1])], NAMES, path, title="t") == path
    assert pixels(path).shape[1] == 1350


def test_a_box_changes_the_mosaic(tmp_path):
    image = np.zeros((64, 64, 3), np.uint8)

    def mosaic(*boxes):
        corners, ids = np.array(boxes, float).reshape(-1, 4), np.zeros(len(boxes), int)
        path = tmp_path / "m.png"
        return pixels(draw.plot_mosaic([image], [corners], [ids], NAMES, path, title="t"))

    assert not np.array_equal(mosaic(), mosaic((10, 10, 50, 50)))


PERSON_MISSED = Miss("a.png", "missed", 0, (10, 50, 40, 150), 54.8)


def test_a_miss_is_cut_out_with_true_and_found_boxes(dataset):
    detections = found((202, 100, 282, 160), (0, 0, 9, 9), class_ids=[1, 2], scores=[0.9, 0.2])
    figure = misses_figure(evaluation(misses=[PERSON_MISSED]), dataset, [detections])
    [axes] = figure.axes
    assert axes.get_title(loc="left") == "person missed"
    assert "nothing found there\na.png" in texts(figure)
    # the cut would be 250 wide and high: the picture's height is all there is of it
    assert axes.images[0].get_array().shape == (200, 250, 3)
    assert outlines(axes) == [
        (TRUE_COLOUR, (10, 50, 40, 150)),
        (TRUE_COLOUR, (200, 100, 280, 160)),
        (FOUND_COLOUR, (202, 100, 282, 160)),
        (TRUE_COLOUR, (10, 50, 40, 150)),
    ]
    assert axes.patches[-1].get_linewidth() > axes.patches[0].get_linewidth()


def test_boxes_move_with_the_cut(dataset):
    miss = Miss("a.png", "false", 2, (250, 20, 270, 30), 0.8)
    figure = misses_figure(
        evaluation(misses=[miss]), dataset, [found((250, 20, 270, 30), class_ids=[2])]
    )
    [axes] = figure.axes
    assert axes.images[0].get_array().shape == (96, 96, 3)
    assert outlines(axes)[-1] == (FOUND_COLOUR, (46, 20, 66, 30))
    assert axes.get_title(loc="left") == "false dog, 0.80"


@pytest.mark.parametrize(
    ("kind", "class_id", "box", "reason"),
    [
        ("false", 2, (10, 50, 40, 150), "marked as person, IoU 1.00"),
        ("false", 0, (10, 50, 40, 150), "that person has another box"),
        ("false", 1, (200, 100, 220, 160), "car marked nearby, IoU 0.25"),
        ("false", 1, (100, 0, 120, 20), "nothing marked there"),
        ("missed", 0, (10, 50, 40, 150), "found as dog, IoU 0.97"),
        ("missed", 1, (200, 100, 280, 160), "nothing found there"),
    ],
)
def test_a_miss_is_explained_by_what_is_there(kind, class_id, box, reason, dataset):
    detections = found((10, 50, 41, 150), class_ids=[2])
    figures = evaluation(misses=[Miss("a.png", kind, class_id, box, 0.8)])
    assert f"{reason}\na.png" in texts(misses_figure(figures, dataset, [detections]))


def test_ignored_regions_are_not_drawn_and_explain_nothing(dataset):
    [sample] = dataset.samples
    crowd = Dataset("val", NAMES, (replace(sample, ignored=np.array([False, True])),))
    miss = Miss("a.png", "false", 2, (200, 100, 280, 160), 0.8)
    figure = misses_figure(evaluation(misses=[miss]), crowd, [found()])
    [axes] = figure.axes
    assert [colour for colour, _ in outlines(axes)] == [TRUE_COLOUR, FOUND_COLOUR]
    assert "nothing marked there\na.png" in texts(figure)


def test_one_picture_does_not_fill_the_grid(dataset):
    misses = [PERSON_MISSED] * 5
    assert len(misses_figure(evaluation(misses=misses), dataset, [found()]).axes) == 2


def test_a_picture_that_is_gone_is_passed_over(dataset):
    dataset.samples[0].path.unlink()
    figure = misses_figure(evaluation(misses=[PERSON_MISSED]), dataset, [found()])
    assert "no mistakes" in texts(figure)


def test_a_real_evaluation_is_drawn(dataset, tmp_path):
    detections = [found((10, 50, 40, 150), (0, 0, 30, 30), class_ids=[0, 2])]
    written = draw.plot_evaluation(evaluate(dataset, detections), dataset, detections, tmp_path)
    assert [path.name for path in written] == [
        *("precision_recall.png", "class_ap.png", "confusion.png", "misses.png")
    ]
    assert all(pixels(path).shape[1] >= 1200 for path in written)


def test_an_empty_data_set_is_drawn(tmp_path):
    for labels in ((), NAMES):
        empty = Dataset("val", labels, ())
        assert len(draw.plot_evaluation(evaluate(empty, []), empty, [], tmp_path)) == 4
    assert pixels(draw.plot_mosaic([], [], [], (), tmp_path / "m.png", title="none")).any()


@pytest.mark.parametrize("names", [("person",), COCO_NAMES, ODD])
def test_every_set_of_names_is_drawn(names, dataset, tmp_path):
    misses = [Miss("a.png", "missed", len(names) - 1, (10, 50, 40, 150), 50)]
    odd = Dataset("val", tuple(names), dataset.samples)
    written = draw.plot_evaluation(evaluation(names, misses=misses), odd, [found()], tmp_path)
    shapes = [pixels(path).shape for path in written]
    assert all(300 <= height <= 3000 and 1200 <= width <= 3000 for height, width, _ in shapes)


def test_a_long_name_keeps_its_beginning_and_its_end():
    assert short("a" * 24) == "a" * 24
    assert short("begin" + "x" * 50 + "end", 9) == "begi…xend"


def test_nothing_of_matplotlib_changes_for_others(tmp_path):
    before = dict(mpl.rcParams)
    draw.plot_run([validated(0, 0.5)], tmp_path)
    assert dict(mpl.rcParams) == before


def test_neither_pyplot_nor_torch_nor_supervision_is_loaded():
    code = "import rtdetrv2_cli.train.plots.draw, sys; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = set(result.stdout.split())
    assert loaded & {"matplotlib.pyplot", "torch", "supervision", "typer", "rich"} == set()


def test_a_picture_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OutputError, match=r"a\.png"):
        write_figure(new_figure("t"), tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_picture_that_cannot_be_drawn_leaves_the_old_one(tmp_path):
    path = write_figure(new_figure("t"), tmp_path / "a.png")
    before = path.read_bytes()
    with Image.open(BytesIO(before)) as picture:
        assert picture.size == (1200, 675)
    figure = new_figure("t")
    figure.subplots().set_title("$\\frac{$")
    with pytest.raises(ValueError, match="frac"):
        write_figure(figure, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
