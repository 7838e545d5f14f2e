import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from rtdetrv2_cli.errors import InputError, TrainingError, UsageError
from rtdetrv2_cli.train.data import loader as module
from rtdetrv2_cli.train.data.augment import Example, augment
from rtdetrv2_cli.train.data.formats import open_dataset
from rtdetrv2_cli.train.data.loader import (
    Augmentation,
    Examples,
    Order,
    PictureCache,
    Place,
    TrainingBatch,
    collate,
    multi_scale_size,
    open_loader,
)
from rtdetrv2_cli.train.recipe import multi_scale_sizes
from rtdetrv2_cli.types import Size

SIZE = Size(64, 96)
RULES = Augmentation(size=SIZE, stop_epoch=2)

# where there is but one core
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")


@pytest.fixture
def temporary(tmp_path_factory, monkeypatch):
    """Where the cache puts its file; a test may look whether it is there.

    Its path is short: workers put sockets into it, whose names may have 107 bytes.
    """
    folder = tmp_path_factory.mktemp("t")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def samples(make_dataset):
    return open_dataset(make_dataset(train=7), "train").samples


@pytest.fixture
def open_cache(temporary):
    return lambda samples, max_side=1000, **options: PictureCache(samples, max_side, **options)


def pixels(sample):
    with Image.open(sample.path) as picture:
        return np.asarray(picture.convert("RGB"))


def same(one, other):
    return (
        np.array_equal(one.image, other.image)
        and np.array_equal(one.boxes, other.boxes)
        and np.array_equal(one.class_ids, other.class_ids)
        and np.array_equal(one.ignored, other.ignored)
    )


def same_batches(ones, others):
    return len(ones) == len(others) and all(
        torch.equal(a.pixels, b.pixels)
        and [p.keys() for p in a.labels] == [p.keys() for p in b.labels]
        and all(
            torch.equal(p[key], q[key])
            for p, q in zip(a.labels, b.labels, strict=True)
            for key in p
        )
        for a, b in zip(ones, others, strict=True)
    )


# --- order ---


def flat(batches):
    return [place.sample for batch in batches for place in batch]


def test_an_epoch_goes_through_every_picture_once():
    order = Order(12, 3, seed=5)
    assert order.steps == 4
    for epoch in range(3):
        batches = order.batches(epoch)
        assert [len(batch) for batch in batches] == [3] * 4
        assert sorted(flat(batches)) == list(range(12))
        assert {place.epoch for batch in batches for place in batch} == {epoch}


def test_epochs_and_seeds_have_different_orders_and_equal_ones_the_same():
    orders = [flat(Order(30, 5, seed).batches(epoch)) for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 9
    assert flat(Order(30, 5, 2).batches(1)) == orders[7]
    assert orders[0] != list(range(30))


def test_pictures_that_fill_no_batch_wait_for_another_epoch():
    order = Order(11, 4, seed=0)
    assert order.steps == 2
    left_out = {frozenset(range(11)) - frozenset(flat(order.batches(epoch))) for epoch in range(10)}
    assert all(len(left) == 3 for left in left_out)
    assert len(left_out) > 5


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_an_epoch_without_overlap(world):
    alone = Order(26, 4 * world, seed=1)
    together = [Order(26, 4, 1, rank, world) for rank in range(world)]
    assert {order.steps for order in together} == {alone.steps}
    shares = [order.batches(3) for order in together]
    taken = [flat(share) for share in shares]
    assert len(set().union(*taken)) == sum(map(len, taken)) == 26 // (4 * world) * 4 * world
    # each step has the same pictures, however many processes there are
    for step, batch in enumerate(alone.batches(3)):
        assert [place for share in shares for place in share[step]] == batch


def test_a_set_smaller_than_a_batch_is_repeated():
    order = Order(3, 8, seed=0)
    assert order.steps == 1
    ((*places,),) = order.batches(4)
    assert sorted(Counter(place.sample for place in places).values()) == [2, 3, 3]
    shares = [flat(Order(3, 4, 0, rank, 2).batches(4)) for rank in range(2)]
    assert shares[0] + shares[1] == [place.sample for place in places]


def test_a_run_that_goes_on_has_the_batches_it_would_have_had(samples):
    examples, order = Examples(samples, RULES, seed=3), Order(7, 2, seed=3)
    whole = list(open_loader(examples, order, start=0, stop=9, workers=0))
    assert len(whole) == 9
    for start in (0, 1, 3, 4, 8, 9):
        loader = open_loader(examples, order, start=start, stop=9, workers=0)
        assert same_batches(list(loader), whole[start:])


# --- examples ---


def test_an_example_depends_on_seed_epoch_and_place_alone(samples):
    places = [Place(epoch, index) for epoch in (0, 1) for index in range(7)]
    first, again = Examples(samples, RULES, seed=1), Examples(samples, RULES, seed=1)
    made = {place: first[place] for place in places}
    for place in reversed(places):
        np.random.default_rng().random()
        assert same(again[place], made[place])
    other_seed = Examples(samples, RULES, seed=2)
    for place in places:
        assert not same(other_seed[place], made[place])
    for index in range(7):
        assert not same(made[Place(0, index)], made[Place(1, index)])


def test_examples_from_a_cache_are_the_same(samples, open_cache):
    cached = Examples(samples, RULES, 1, open_cache(samples))
    plain = Examples(samples, RULES, 1)
    for _ in range(2):
        assert all(same(cached[Place(0, index)], plain[Place(0, index)]) for index in range(7))


def test_pictures_are_only_stretched_and_mirrored_from_the_stop_epoch_on(samples):
    examples = Examples(samples, RULES, seed=0)
    for index, sample in enumerate(samples):
        whole = Example(pixels(sample), sample.boxes, sample.class_ids, sample.ignored)
        plain = augment(whole, SIZE, np.random.default_rng(0), strong=False).image
        for epoch in (2, 3, 10):
            image = examples[Place(epoch, index)].image
            assert np.array_equal(image, plain) or np.array_equal(image, plain[:, ::-1])
            assert len(examples[Place(epoch, index)].boxes) == len(sample.boxes)
    changed = [
        not np.array_equal(np.sort(examples[Place(e, i)].image, axis=1), np.sort(plain, axis=1))
        for e in (0, 1)
        for i in range(7)
    ]
    assert sum(changed) >= 13


def test_mosaics_have_objects_of_several_pictures_and_end_with_strong_augmentation(samples):
    marked = [
        replace(sample, class_ids=np.full_like(sample.class_ids, index))
        for index, sample in enumerate(samples)
    ]
    examples = Examples(marked, replace(RULES, mosaic=1.0), seed=0)
    sources = [set(examples[Place(0, index)].class_ids.tolist()) for index in range(7)]
    assert max(map(len, sources)) >= 3
    assert sum(index in source for index, source in enumerate(sources)) >= 6
    plain = [set(examples[Place(2, index)].class_ids.tolist()) for index in range(7)]
    assert plain == [{index} for index in range(7)]
    none = Examples(marked, RULES, seed=0)
    assert all(set(none[Place(0, index)].class_ids) <= {index} for index in range(7))


def test_unsure_boxes_and_crowds_are_background_or_ignored(samples):
    sample = max(samples, key=lambda sample: len(sample.boxes))
    count = len(sample.boxes)
    assert count >= 3
    ignored, confidences = np.zeros(count, np.bool_), np.linspace(0.2, 1, count, dtype=np.float32)
    ignored[-1] = True
    sample = replace(sample, ignored=ignored, confidences=confidences)
    unsure = confidences < 0.5
    plain = replace(RULES, stop_epoch=0, min_confidence=0.5)
    left_out = Examples([sample], plain, seed=0).make(Place(0, 0))
    assert len(left_out.boxes) == int((~(ignored | unsure)).sum())
    assert not left_out.ignored.any()
    told = Examples([sample], replace(plain, ignore_regions=True), seed=0).make(Place(0, 0))
    assert told.ignored.tolist() == (ignored | unsure).tolist()
    assert len(told.boxes) == count
    all_sure = Examples([sample], replace(plain, min_confidence=0), seed=0).make(Place(0, 0))
    assert len(all_sure.boxes) == count - 1


# --- the cache ---


class Kept(Dataset):
    """What several processes read of a cache."""

    def __init__(self, cache):
        self.cache = cache

    def __len__(self):
        return len(self.cache.samples)

    def __getitem__(self, index):
        return index, self.cache.read(index).tobytes(), os.getpid()


def test_a_cached_picture_is_the_decoded_one(samples, open_cache):
    cache = open_cache(samples)
    for _ in range(2):
        for index, sample in enumerate(samples):
            assert np.array_equal(cache.read(index), pixels(sample))


def test_a_picture_that_was_read_once_is_not_decoded_again(samples, open_cache):
    cache = open_cache(samples)
    expected = [cache.read(index).copy() for index in range(5)]
    for sample in samples:
        sample.path.unlink()
    assert all(np.array_equal(cache.read(index), expected[index]) for index in range(5))
    with pytest.raises(InputError, match=r"train_005\.png"):
        cache.read(5)


def test_workers_share_what_each_of_them_has_decoded(samples, open_cache):
    cache = open_cache(samples)
    expected = [pixels(sample).tobytes() for sample in samples]
    cache.read(0)  # a map that is open must not hinder a worker
    readers = set()
    for _ in range(2):
        for index, image, reader in DataLoader(Kept(cache), batch_size=None, num_workers=2):
            assert image == expected[index]
            readers.add(reader)
        for sample in samples:
            sample.path.unlink(missing_ok=True)
    assert len(readers - {os.getpid()}) == 4
    assert [cache.read(index).tobytes() for index in range(7)] == expected


def test_a_cache_is_sent_to_a_worker_without_its_pictures(samples, open_cache):
    cache = open_cache(samples)
    expected = cache.read(2).copy()
    sent = pickle.dumps(cache)
    assert len(sent) < cache.bytes / 10
    received = pickle.loads(sent)
    assert not received.keeps
    assert np.array_equal(received.read(2), expected)


@pytest.mark.parametrize(
    ("size", "max_side", "kept"),
    [
        ((96, 128), 64, (48, 64)),
        ((96, 128), 128, (96, 128)),
        ((96, 128), 127, (95, 127)),
        ((300, 2), 100, (100, 1)),
        ((300, 1), 100, (100, 1)),
        ((1, 1), 1, (1, 1)),
    ],
)
def test_a_picture_larger_than_needed_is_kept_smaller(
    size, max_side, kept, samples, make_picture, open_cache
):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    sample = replace(samples[0], path=make_picture("large.png", image), size=Size(*size))
    for enabled in (True, False):
        read = open_cache([sample], max_side, enabled=enabled).read(0)
        assert read.shape == (*kept, 3)
        expected = Image.fromarray(image).resize(kept[::-1], Image.Resampling.BILINEAR)
        assert np.array_equal(read, np.asarray(expected))


def test_boxes_shrink_with_their_picture(make_dataset, open_cache):
    samples = open_dataset(make_dataset(train=2, size=(300, 400)), "train").samples
    plain = replace(RULES, stop_epoch=0)
    whole = Examples(samples, plain, 0, open_cache(samples, 1000))
    small = Examples(samples, plain, 0, open_cache(samples, 97))
    for index, sample in enumerate(samples):
        a, b = whole[Place(0, index)], small[Place(0, index)]
        assert len(a.boxes) == len(sample.boxes)
        np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-3)
        assert np.abs(a.image.astype(int) - b.image).mean() < 8
    default = Examples(samples, plain, 0)  # no smaller than twice the input
    assert default.cache.read(0).shape == (144, 192, 3)


def test_without_room_nothing_is_kept(samples, open_cache, temporary, monkeypatch):
    full = shutil.disk_usage(temporary)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    cache = open_cache(samples)
    assert np.array_equal(cache.read(0), pixels(samples[0]))
    assert list(temporary.iterdir()) == []
    samples[0].path.unlink()
    with pytest.raises(InputError):
        cache.read(0)


def test_without_memory_nothing_is_kept(samples, open_cache, temporary, monkeypatch):
    monkeypatch.setattr(module, "_available_memory", lambda: 1000)
    assert not open_cache(samples).keeps
    monkeypatch.undo()
    assert open_cache(samples).keeps


def test_memory_that_can_be_had_counts_what_the_system_would_give_back(tmp_path):
    there = tmp_path / "meminfo"
    there.write_text("MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:    5000 kB\nCached: 1 kB\n")
    assert module._available_memory(there) == 5000 * 1024
    there.write_text("MemFree: 10 kB\n")  # an old kernel
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert module._available_memory(there) == pytest.approx(free, rel=0.5)
    assert module._available_memory(tmp_path / "none") == 0


def test_the_cache_can_be_switched_off(samples, open_cache, temporary):
    cache = open_cache(samples, enabled=False)
    assert np.array_equal(cache.read(3), pixels(samples[3]))
    assert list(temporary.iterdir()) == []


def test_the_cache_has_room_for_every_picture_and_leaves_no_file(samples, open_cache, temporary):
    cache = open_cache(samples)
    cache.read(0)
    assert cache.keeps
    assert cache.bytes == 7 * 96 * 128 * 3
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("enabled", [True, False])
def test_a_picture_that_has_changed_is_an_input_error(enabled, workers, samples, open_cache):
    Image.new("RGB", (128, 95)).save(samples[4].path)
    examples = Examples(samples, RULES, 0, open_cache(samples, enabled=enabled))
    loader = open_loader(examples, Order(7, 7, 0), start=0, stop=1, workers=workers)
    with pytest.raises(InputError, match=r"^/.*train_004\.png is not the picture it was"):
        list(loader)


def test_a_picture_that_a_worker_cannot_read_is_an_input_error_of_one_sentence(samples):
    samples[4].path.write_bytes(samples[4].path.read_bytes()[:2000])
    loader = open_loader(Examples(samples, RULES, 0), Order(7, 7, 0), start=0, stop=1, workers=1)
    with pytest.raises(InputError, match=r"train_004\.png cannot be read any more: ") as error:
        list(loader)
    assert "\n" not in str(error.value)


def test_a_worker_that_is_killed_is_a_training_error_and_only_where_batches_are_asked_for(samples):
    list(DataLoader(samples, batch_size=None, num_workers=1))  # sets torch's handler
    others = set(multiprocessing.active_children())
    loader = open_loader(Examples(samples, RULES, 0), Order(7, 2, 0), start=0, stop=60, workers=1)
    next(loader)
    (worker,) = set(multiprocessing.active_children()) - others
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(20)
    time.sleep(0.2)  # torch's own handler would raise here
    with pytest.raises(TrainingError, match="a process that prepares pictures was ended"):
        list(loader)


# --- batches ---


def test_a_batch_has_pixels_and_boxes_relative_to_them():
    image = np.random.default_rng(0).integers(0, 256, (40, 80, 3)).astype(np.uint8)
    boxes = np.array([[0, 0, 80, 40], [20, 10, 40, 15], [60, 30, 80, 40]], np.float32)
    marks = np.array([False, True, False])
    example = Example(image, boxes, np.array([4, 1, 2]), marks)
    nothing = example[np.zeros(3, np.bool_)]
    batch = collate([example, nothing])
    assert batch.pixels.dtype == torch.uint8
    assert batch.pixels.shape == (2, 3, 40, 80)
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(batch.pixels[0].permute(1, 2, 0).numpy(), image)
    first, second = batch.labels
    assert first["class_labels"].tolist() == [4, 2]
    assert first["class_labels"].dtype == torch.int64
    assert first["boxes"].tolist() == [[0.5, 0.5, 1, 1], [0.875, 0.875, 0.25, 0.25]]
    assert first["ignored"].tolist() == [[0.375, 0.3125, 0.25, 0.125]]
    assert first["boxes"].dtype == first["ignored"].dtype == torch.float32
    assert second.keys() == {"class_labels", "boxes"}
    assert second["class_labels"].shape == (0,)
    assert second["boxes"].shape == (0, 4)


def test_a_batch_moves_as_a_whole():
    batch = TrainingBatch(
        torch.zeros(1, 3, 2, 2, dtype=torch.uint8),
        [
            {
                "class_labels": torch.zeros(1),
                "boxes": torch.zeros(1, 4),
                "ignored": torch.zeros(1, 4),
            }
        ],
    )
    moved = batch.to(torch.device("meta"))
    assert {moved.pixels.device.type, *(t.device.type for t in moved.labels[0].values())} == {
        "meta"
    }
    assert moved.labels[0].keys() == batch.labels[0].keys()


def test_a_worker_makes_the_very_batches_that_are_made_without_one(samples, open_cache):
    rules = replace(RULES, mosaic=0.3, ignore_regions=True, min_confidence=0.5)
    unsure = [
        replace(s, confidences=np.linspace(0.3, 1, len(s.boxes), dtype=np.float32)) for s in samples
    ]
    examples, order = Examples(unsure, rules, 9, open_cache(unsure)), Order(7, 3, 9)
    alone, helped, helped_by_two = (
        list(open_loader(examples, order, start=1, stop=6, workers=workers))
        for workers in (0, 1, 2)
    )
    assert len(alone) == 5
    assert any("ignored" in picture for batch in alone for picture in batch.labels)
    assert same_batches(alone, helped)
    assert same_batches(alone, helped_by_two)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such sockets")
def test_a_temporary_folder_that_is_too_deep_for_workers_is_told(samples, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 80)))
    examples = Examples(samples, RULES, 0)
    with pytest.raises(UsageError, match=r"set TMPDIR to a shorter one, or say --workers 0"):
        next(open_loader(examples, Order(7, 2, 0), start=0, stop=3, workers=2))
    assert next(open_loader(examples, Order(7, 2, 0), start=0, stop=3, workers=0))


@pytest.mark.timeout(60)
def test_workers_start_where_opencv_has_threads(samples):
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        cv2.GaussianBlur(np.zeros((3000, 3000, 3), np.uint8), (9, 9), 2)
        examples = Examples(samples, RULES, 0)
        assert len(list(open_loader(examples, Order(7, 2, 0), start=0, stop=3, workers=2))) == 3
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_a_loader_may_be_left_before_its_end(samples):
    examples = Examples(samples, RULES, 0)
    loader = open_loader(examples, Order(7, 2, 0), start=0, stop=300, workers=1)
    assert len(list(islice(loader, 2))) == 2


# --- multi-scale ---


SIZES = multi_scale_sizes(Size(640, 1280))


def test_the_size_of_a_batch_depends_on_seed_step_and_rank_alone():
    sizes = [multi_scale_size(SIZES, 7, step) for step in range(300)]
    assert sizes == [multi_scale_size(SIZES, 7, step) for step in range(300)]
    for other in ({"seed": 8}, {"rank": 1}):
        given = {"seed": 7, "rank": 0} | other
        others = [multi_scale_size(SIZES, step=step, **given) for step in range(300)]
        assert 0.05 < np.mean([a == b for a, b in zip(sizes, others, strict=True)]) < 0.25


def test_every_size_is_drawn_as_often_as_it_is_listed():
    counts = Counter(multi_scale_size(SIZES, 0, step) for step in range(6500))
    assert counts.keys() == set(SIZES)
    for size, count in counts.items():
        assert abs(count / 500 - SIZES.count(size)) < 0.3
