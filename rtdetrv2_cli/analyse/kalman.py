"""A Kalman filter in which each of a box's four numbers moves on its own, at constant velocity.

Transition, observation and all noise are diagonal in the four numbers, so the usual filter of
eight states is four of two, and needs no matrix. Time is counted in steps of a thirtieth of a
second, the frame that the published noises are about; of a longer step the noise grows with time.

A state is [..., 5, 4]: the four numbers, their rates, and their variance, covariance and the
variance of the rates.
"""

from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEPS_PER_SECOND: Final = 30

_VALUE, _RATE, _VARIANCE, _COVARIANCE, _RATE_VARIANCE = range(5)

_POSITION: Final = 1 / 20
"""Standard deviation of a place, as a share of the box's side, by DeepSORT (2017)."""
_VELOCITY: Final = 1 / 160
"""The same of its change in a step."""
_SMALLEST: Final = 1e-6
"""Pixels, so that every box has an area."""


class Noise(NamedTuple):
    """Variances of the four numbers and of their rates."""

    values: Array
    rates: Array


class Form(Protocol):
    """How a box is said in four numbers, and how sure they are."""

    def to_values(self, boxes: Array) -> Array:
        """[..., 4] of boxes [..., 4], x1, y1, x2, y2 in pixels."""
        ...

    def to_boxes(self, values: Array) -> Array:
        """The way back."""
        ...

    def at_first(self, values: Array) -> Noise:
        """Of what is seen for the first time."""
        ...

    def in_a_step(self, values: Array) -> Noise:
        """What a step adds."""
        ...

    def when_seen(self, values: Array) -> Array:
        """Variances of an observation."""
        ...


class AspectHeight:
    """Centre, width by height, and height: the form of DeepSORT and ByteTrack."""

    def to_values(self, boxes: Array) -> Array:
        x, y, width, height = _centred(boxes)
        return np.stack((x, y, width / height, height), axis=-1)

    def to_boxes(self, values: Array) -> Array:
        x, y, aspect, height = np.moveaxis(values, -1, 0)
        return _cornered(x, y, aspect * height, height)

    def at_first(self, values: Array) -> Noise:
        side = self._sides(values)
        aspect, change = np.full_like(side, 1e-2), np.full_like(side, 1e-5)
        return self._noise(2 * _POSITION * side, aspect, 10 * _VELOCITY * side, change)

    def in_a_step(self, values: Array) -> Noise:
        side = self._sides(values)
        aspect, change = np.full_like(side, 1e-2), np.full_like(side, 1e-5)
        return self._noise(_POSITION * side, aspect, _VELOCITY * side, change)

    def when_seen(self, values: Array) -> Array:
        side = self._sides(values)
        aspect = np.full_like(side, 1e-1)
        return self._noise(_POSITION * side, aspect, side, side).values

    @staticmethod
    def _sides(values: Array) -> Array:
        height: Array = values[..., 3]
        return height

    @staticmethod
    def _noise(side: Array, aspect: Array, change: Array, aspect_change: Array) -> Noise:
        values = np.stack((side, side, aspect, side), axis=-1)
        rates = np.stack((change, change, aspect_change, change), axis=-1)
        return Noise(values**2, rates**2)


class WidthHeight:
    """Centre, width and height: the form of BoT-SORT."""

    def to_values(self, boxes: Array) -> Array:
        return np.stack(_centred(boxes), axis=-1)

    def to_boxes(self, values: Array) -> Array:
        return _cornered(*np.moveaxis(values, -1, 0))

    def at_first(self, values: Array) -> Noise:
        sides = self._sides(values)
        return Noise((2 * _POSITION * sides) ** 2, (10 * _VELOCITY * sides) ** 2)

    def in_a_step(self, values: Array) -> Noise:
        sides = self._sides(values)
        return Noise((_POSITION * sides) ** 2, (_VELOCITY * sides) ** 2)

    def when_seen(self, values: Array) -> Array:
        noise: Array = (_POSITION * self._sides(values)) ** 2
        return noise

    @staticmethod
    def _sides(values: Array) -> Array:
        return np.tile(values[..., 2:], 2)


class AreaAspect:
    """Centre, area, and width by height, which does not change: the form of SORT and OC-SORT.

    Its noise is theirs, in pixels, whatever the size of the box.
    """

    def to_values(self, boxes: Array) -> Array:
        x, y, width, height = _centred(boxes)
        return np.stack((x, y, width * height, width / height), axis=-1)

    def to_boxes(self, values: Array) -> Array:
        x, y, area, aspect = np.moveaxis(values, -1, 0)
        width = np.sqrt(np.maximum(area * aspect, _SMALLEST**2))
        return _cornered(x, y, width, np.maximum(area, _SMALLEST**2) / width)

    def at_first(self, values: Array) -> Noise:
        return Noise(np.full_like(values, 10.0), _each(values, 1e4, 1e4, 1e4, 0.0))

    def in_a_step(self, values: Array) -> Noise:
        return Noise(np.ones_like(values), _each(values, 0.01, 0.01, 1e-4, 0.0))

    def when_seen(self, values: Array) -> Array:
        return _each(values, 1.0, 1.0, 10.0, 10.0)


def begin(values: Array, form: Form) -> Array:
    """The state of what is seen for the first time, at rest."""
    noise = form.at_first(values)
    still = np.zeros_like(values)
    return np.stack((values, still, noise.values, still, noise.rates), axis=-2)


def predict(state: Array, steps: float, form: Form) -> Array:
    """The state some steps later."""
    value, rate, variance, covariance, rate_variance = _parts(state)
    noise = form.in_a_step(value)
    return np.stack(
        (
            value + steps * rate,
            rate,
            variance + steps * (2 * covariance + steps * rate_variance + noise.values),
            covariance + steps * rate_variance,
            rate_variance + steps * noise.rates,
        ),
        axis=-2,
    )


def correct(state: Array, values: Array, form: Form) -> Array:
    """The state once `values` have been seen."""
    value, rate, variance, covariance, rate_variance = _parts(state)
    doubt = variance + form.when_seen(value)
    gain, rate_gain = variance / doubt, covariance / doubt
    surprise = values - value
    return np.stack(
        (
            value + gain * surprise,
            rate + rate_gain * surprise,
            variance - gain * variance,
            covariance - gain * covariance,
            rate_variance - rate_gain * covariance,
        ),
        axis=-2,
    )


def boxes_of(state: Array, form: Form) -> Array:
    """[..., 4] where they are thought to be, x1, y1, x2, y2 in pixels."""
    return form.to_boxes(state[..., _VALUE, :])


def stop(state: Array, number: int) -> None:
    """Lets one of the four numbers rest, in place."""
    state[..., _RATE, number] = 0


def moved(state: Array, turn: Array, shift: Array) -> Array:
    """The state after the camera has moved.

    Args:
        state: In a form whose first two numbers are the centre, and the others lengths.
        turn: [2, 2], by which places are turned and scaled.
        shift: [2] pixels, by which they move then.
    """
    state = state.copy()
    scale = np.sqrt(abs(np.linalg.det(turn)))
    for part in (_VALUE, _RATE):
        state[..., part, :2] = state[..., part, :2] @ turn.T
        state[..., part, 2:] *= scale
    state[..., _VALUE, :2] += shift
    state[..., _VARIANCE:, :] *= scale**2
    return state


def _each(values: Array, *numbers: float) -> Array:
    """The same four numbers for each of [..., 4]."""
    return np.broadcast_to(np.array(numbers), values.shape)


def _parts(state: Array) -> tuple[Any, ...]:
    return tuple(np.moveaxis(state, -2, 0))


def _centred(boxes: Array) -> tuple[Array, Array, Array, Array]:
    x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)
    width, height = (np.maximum(side, _SMALLEST) for side in (x2 - x1, y2 - y1))
    return (x1 + x2) / 2, (y1 + y2) / 2, width, height


def _cornered(x: Array, y: Array, width: Array, height: Array) -> Array:
    return np.stack((x - width / 2, y - height / 2, x + width / 2, y + height / 2), axis=-1)
