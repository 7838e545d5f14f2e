"""The filter is the usual one of eight states, and does not care how time is cut."""

import numpy as np
import pytest

from rtdetrv2_cli.analyse import kalman
from rtdetrv2_cli.analyse.kalman import AreaAspect, AspectHeight, WidthHeight

FORMS = [AspectHeight(), WidthHeight(), AreaAspect()]


def name(form):
    return type(form).__name__


def some_boxes(count, seed=0):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 500, (count, 2))
    return np.concatenate([low, low + rng.uniform(5, 200, (count, 2))], axis=1)


@pytest.mark.parametrize("form", FORMS, ids=name)
def test_a_box_is_said_in_four_numbers_and_read_back(form):
    boxes = some_boxes(20)
    np.testing.assert_allclose(form.to_boxes(form.to_values(boxes)), boxes, atol=1e-9)
    assert np.isfinite(form.to_boxes(form.to_values(np.array([3.0, 4.0, 3.0, 4.0])))).all()


@pytest.mark.parametrize("form", FORMS, ids=name)
def test_it_is_the_filter_of_eight_states_in_the_textbook(form):
    boxes = some_boxes(6, seed=3)
    state = kalman.begin(form.to_values(boxes[0]), form)
    noise = form.at_first(form.to_values(boxes[0]))
    mean = np.concatenate([form.to_values(boxes[0]), np.zeros(4)])
    covariance = np.diag(np.concatenate(noise))
    see = np.eye(4, 8)
    for box, steps in zip(boxes[1:], (1.0, 1.0, 2.5, 0.4, 1.0), strict=True):
        move = np.eye(8) + steps * np.eye(8, k=4)
        added = np.diag(np.concatenate(form.in_a_step(mean[:4]))) * steps
        mean, covariance = move @ mean, move @ covariance @ move.T + added
        state = kalman.predict(state, steps, form)
        np.testing.assert_allclose(state[:2].ravel(), mean, rtol=1e-9)
        doubt = see @ covariance @ see.T + np.diag(form.when_seen(mean[:4]))
        gain = covariance @ see.T @ np.linalg.inv(doubt)
        mean = mean + gain @ (form.to_values(box) - see @ mean)
        covariance = covariance - gain @ doubt @ gain.T
        state = kalman.correct(state, form.to_values(box), form)
        np.testing.assert_allclose(state[:2].ravel(), mean, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(state[2], np.diag(covariance)[:4], rtol=1e-9)
        np.testing.assert_allclose(state[4], np.diag(covariance)[4:], rtol=1e-9)


def test_noises_are_those_of_the_published_code():
    (initial, rates), seen = (
        AspectHeight().at_first(np.array([10.0, 20, 0.5, 160])),
        AspectHeight().when_seen(np.array([10.0, 20, 0.5, 160])),
    )
    np.testing.assert_allclose(np.sqrt(initial), [16, 16, 1e-2, 16])
    np.testing.assert_allclose(np.sqrt(rates), [10, 10, 1e-5, 10])
    np.testing.assert_allclose(np.sqrt(seen), [8, 8, 1e-1, 8])


@pytest.mark.parametrize("form", FORMS, ids=name)
def test_two_half_steps_lead_where_a_whole_one_does(form):
    state = kalman.begin(form.to_values(some_boxes(1)[0]), form)
    state[1] = (3, -2, 0.01, 0.5)
    halves = kalman.predict(kalman.predict(state, 0.5, form), 0.5, form)
    whole = kalman.predict(state, 1, form)
    np.testing.assert_allclose(halves[:2], whole[:2])
    # The noise of a step is that of a whole one but for what the rate's leads to within it.
    np.testing.assert_allclose(halves[2], whole[2], rtol=0.3)


def test_a_state_moves_with_the_camera():
    form = WidthHeight()
    state = kalman.begin(form.to_values(np.array([10.0, 10, 30, 50])), form)
    state[1, :2] = (1, 0)
    quarter = np.array([[0.0, -2], [2, 0]])  # a quarter turn, twice as large
    after = kalman.moved(state, quarter, np.array([100.0, 0]))
    np.testing.assert_allclose(after[0], [100 - 2 * 30, 2 * 20, 40, 80])
    np.testing.assert_allclose(after[1], [0, 2, 0, 0], atol=1e-12)
    np.testing.assert_allclose(after[2], 4 * state[2])
