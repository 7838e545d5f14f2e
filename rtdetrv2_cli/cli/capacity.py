"""How much a run detects at once, and where it decodes: what it is given of the machine."""

import re
from typing import Literal

from rtdetrv2_cli.cli.plan import Plan
from rtdetrv2_cli.infer.detector import CPU_BATCH, GPU_BATCH, Detector
from rtdetrv2_cli.infer.engine import many_requests
from rtdetrv2_cli.media.hardware import Hardware


def choose_batch(plan: Plan, batch: str) -> int | Literal["auto"] | None:
    """The value of `--batch` for a detector, which tries sizes only where there is much to do."""
    if batch != "auto":
        return int(batch)
    most = most_at_once(plan)
    is_little = plan.is_live or (most is not None and most <= GPU_BATCH)
    return None if is_little else "auto"


def requests_at_once(
    plan: Plan, batch: int | Literal["auto"] | None, cores: int | None = None
) -> int:
    """In how many batches to detect at once; one where all cores had better share the same one.

    The cores are those of a worker; None: of this machine.

    What is left to do has no say: each way may round otherwise, and a run that goes on must not.
    """
    size = batch if isinstance(batch, int) else CPU_BATCH
    few = len(plan.inputs) <= size and _reads_pictures(plan)
    return 1 if plan.is_live or few else many_requests(cores)


def decoding(plan: Plan, hwaccel: str, detector: Detector) -> Hardware:
    """Where videos are decoded; on a GPU their pictures stay there if only its network wants them.

    Raises:
        UsageError: There is no such kind of hardware.
    """
    gpu = re.fullmatch(r"cuda:(\d+)", detector.engine.device)
    if gpu is None or plan.draws or plan.crops is not None:
        return Hardware(hwaccel)
    return Hardware(hwaccel, stays_on=int(gpu[1]))


def fit_batch(plan: Plan, detector: Detector) -> None:
    """Lets a batch be no larger than all the pictures that there are; the same where some are done.

    So it need not be filled up. Of tiles there are more.
    """
    if (most := most_at_once(plan)) is not None and detector.slicing is None:
        detector.batch_size = min(detector.batch_size, most)


def most_at_once(plan: Plan) -> int | None:
    """How many frames there are at most; None: nobody knows, or there are many."""
    return max(1, len(plan.inputs)) if _reads_pictures(plan) else None


def _reads_pictures(plan: Plan) -> bool:
    return all(item.kind == "picture" for item in plan.inputs)
