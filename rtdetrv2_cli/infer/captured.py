"""A network launched as one CUDA graph. Knows no picture and no engine."""

import logging
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

Network = Callable[[Tensor], tuple[Tensor, Tensor]]
"""RGB uint8 [b, height, width, 3] to logits [b, q, c] and boxes [b, q, 4], cxcywh, in float32."""

_MOST: Final = 8
"""Graphs; each holds on to the memory of what it answers."""
_WARM_UP: Final = 3
"""Runs on a stream of their own before a graph is recorded: libraries allocate in the first."""

_log = logging.getLogger(__name__)


class Captured:
    """A network whose launch costs a core next to nothing, once a GPU has seen a size of batch.

    To launch hundreds of kernels takes longer than to compute many of them; a CUDA graph of them is
    launched at once. It works on fixed addresses: there is one for each size of batch, recorded
    when that size comes for the second time, so that the last batch of a video costs nothing.
    Elsewhere than on CUDA, and where no graph can be recorded, the network runs as it is.

    Calls must not overlap. What one answers may lie in memory that the next one overwrites.

    Args:
        network: It must neither wait for the device nor choose by what a tensor holds.
        device: Where it is.
    """

    def __init__(self, network: Network, device: torch.device) -> None:
        self._network = network
        self._captures = device.type == "cuda"
        self._seen: set[int] = set()
        self._graphs: dict[int, Network] = {}
        self._pool: Any = torch.cuda.graph_pool_handle() if self._captures else None

    def __call__(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        count = len(pictures)
        if self._captures and count in self._seen and len(self._graphs) < _MOST:
            self._capture(pictures)
        self._seen.add(count)
        return self._graphs.get(count, self._network)(pictures)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batches that there is a graph for."""
        return tuple(self._graphs)

    def _capture(self, pictures: Tensor) -> None:
        count = len(pictures)
        if count in self._graphs:
            return
        try:
            self._graphs[count] = _recorded(self._network, pictures, self._pool)
        except RuntimeError as error:  # memory that ran out is one, too
            self._captures = False
            reason = str(error).strip().partition("\n")[0]
            _log.warning("kernels are launched one by one: no CUDA graph of them (%s)", reason)


def _recorded(network: Network, pictures: Tensor, pool: Any) -> Network:
    """A graph of the network for a batch of this size; what it works on shares a pool of memory."""
    put_in = pictures.clone()
    cuda: Any = torch.cuda
    current, side = cuda.current_stream(pictures.device), cuda.Stream(pictures.device)
    side.wait_stream(current)
    with cuda.stream(side):
        for _ in range(_WARM_UP):
            network(put_in)
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Other threads go on copying pictures meanwhile, which is none of this graph's business.
    with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
        answer = network(put_in)

    def replay(pictures: Tensor) -> tuple[Tensor, Tensor]:
        put_in.copy_(pictures)
        graph.replay()
        return answer

    return replay
