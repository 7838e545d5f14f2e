"""The moving average of a network's weights, which is what is evaluated and kept."""

import math
from copy import deepcopy

import torch

from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.train.recipe import Recipe


class Average:
    """Starts as a copy of the network and follows it ever more slowly.

    After update u = 1, 2, ... every floating tensor of the state is
    `d · average + (1 - d) · network` with `d = decay · (1 - exp(-u / warmup))`; whole numbers,
    such as counts of batches, stay.

    Args:
        network: What to follow.
        recipe: Has the decay and the warm-up.
    """

    def __init__(self, network: RtDetrV2ForObjectDetection, recipe: Recipe) -> None:
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.updates = 0
        self._decay, self._warmup = recipe.ema_decay, recipe.ema_warmup

    @torch.no_grad()
    def update(self, network: RtDetrV2ForObjectDetection) -> None:
        """Goes a little towards the network."""
        self.updates += 1
        decay = self._decay * (1 - math.exp(-self.updates / self._warmup))
        followed = network.state_dict()
        for name, tensor in self.network.state_dict().items():
            if tensor.is_floating_point():
                tensor.lerp_(followed[name], 1 - decay)
