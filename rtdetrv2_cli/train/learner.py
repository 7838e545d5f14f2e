"""One step of training: loss, gradients, optimiser, average. Knows no epoch and no file."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from rtdetrv2_cli.allocator import keep_freed_memory
from rtdetrv2_cli.errors import TrainingError
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.train.average import Average
from rtdetrv2_cli.train.data.loader import TrainingBatch
from rtdetrv2_cli.train.recipe import Recipe, group_parameters
from rtdetrv2_cli.types import Size

AMP_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

LOSS_TERMS = ("loss", "loss_vfl", "loss_bbox", "loss_giou")
"""What a step reports: the sum of all terms, and the last layer's three."""


class Learner:
    """A network with everything that makes it learn.

    Args:
        model: The network, on the device it shall learn on; frozen parts have no gradients.
        recipe: Rates, averaging, clipping.
        steps: Of the whole run; the learning rate depends on it.
        dtype: `fp32`, or `bf16` or `fp16` for mixed precision.
        lr_scale: Factor on every learning rate of the recipe.
        seed: Of the noise that noised queries get; with the step it decides all of it.
    """

    def __init__(
        self,
        model: RtDetrV2ForObjectDetection,
        recipe: Recipe,
        *,
        steps: int,
        dtype: str = "fp32",
        lr_scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.steps = steps
        self.seed = seed
        self.step = 0
        self.device = next(model.parameters()).device
        self._network = _distributed(model, self.device)
        self.average = Average(model, recipe)  # after all processes have the first one's weights
        self._frozen = _frozen_norms(model)
        groups = group_parameters(model, recipe)
        self._rates = [group.lr * lr_scale for group in groups]
        self._optimiser = torch.optim.AdamW(
            [{"params": g.parameters, "weight_decay": g.weight_decay} for g in groups],
            betas=(0.9, 0.999),
            fused=self.device.type in ("cpu", "cuda", "mps", "xpu"),
        )
        self._dtype = AMP_DTYPES[dtype]
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == "fp16")
        _densify_gradients(model)
        if self.device.type == "cpu":
            keep_freed_memory()
        model.train()
        for norm in self._frozen:
            norm.eval()

    @property
    def rates(self) -> list[float]:
        """Learning rate of each parameter group in the coming step."""
        factor = learning_rate_factor(self.step, self.steps, self.recipe)
        return [rate * factor for rate in self._rates]

    def learn(self, batch: TrainingBatch, size: Size | None = None) -> dict[str, float]:
        """Takes one step.

        Args:
            batch: On any device.
            size: Resize the pictures to this size first; None: leave them.

        Returns:
            `LOSS_TERMS` of the batch.

        Raises:
            TrainingError: The loss is not finite; no weight has changed.
        """
        # alone decides the noise, so that a run that was stopped goes on with the same
        torch.manual_seed(_mixed(self.seed, self.step, _rank()))
        pixels, labels = batch.to(self.device)
        images = pixels.to(torch.float32).div_(255)
        if size is not None and tuple(size) != images.shape[-2:]:
            images = F.interpolate(images, size=tuple(size))  # nearest, as the authors do
        mixed = self._dtype != torch.float32
        with torch.autocast(self.device.type, self._dtype, enabled=mixed):
            output = self._network(images, labels)
        terms = torch.stack([output.loss.detach(), *(output.loss_dict[t] for t in LOSS_TERMS[1:])])
        report = dict(zip(LOSS_TERMS, terms.tolist(), strict=True))
        if not math.isfinite(report["loss"]):
            raise TrainingError(
                f"the loss is {report['loss']} at step {self.step}: try a lower --lr, or "
                "--dtype fp32"
            )
        self._follow(output.loss)
        return report

    def _follow(self, loss: Tensor) -> None:
        for group, rate in zip(self._optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate
        torch.autograd.backward(self._scaler.scale(loss))
        self._scaler.unscale_(self._optimiser)
        if self.recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._optimiser.zero_grad(set_to_none=True)
        self.average.update(self.model)
        self.step += 1

    def state(self) -> dict[str, Any]:
        """Everything that a later run needs to go on as if this one had not stopped."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.network.state_dict(),
            "updates": self.average.updates,
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` said."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average.network.load_state_dict(state["average"])
        self.average.updates = state["updates"]
        self._optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state["scaler"])


def _densify_gradients(model: nn.Module) -> None:
    """Spares batch norms the gradients that are slices of others: gaps slow their backward."""

    def densify(_: nn.Module, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(g.contiguous(memory_format=torch.channels_last) for g in gradients)

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_full_backward_pre_hook(densify)


def synchronise_norms(model: RtDetrV2ForObjectDetection) -> None:
    """Lets batch norms measure over the batches of all processes, which CUDA alone can."""
    convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
    for name, child in model.model.named_children():
        setattr(model.model, name, convert(child))


def learning_rate_factor(step: int, steps: int, recipe: Recipe) -> float:
    """Linear warm-up, then constant or half a cosine down to a hundredth."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    if recipe.schedule == "constant":
        return 1.0
    share = (step - recipe.warmup_steps) / max(1, steps - recipe.warmup_steps)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, share))) / 2


def _distributed(model: nn.Module, device: torch.device) -> nn.Module:
    if not (dist.is_available() and dist.is_initialized()):
        return model
    return DistributedDataParallel(model, device_ids=None if device.type == "cpu" else [device])


def _frozen_norms(model: nn.Module) -> list[nn.Module]:
    """Norms whose weights do not train: their statistics must not move either."""
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and not any(p.requires_grad for p in module.parameters())
    ]


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _mixed(*numbers: int) -> int:
    """One seed made of several."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
