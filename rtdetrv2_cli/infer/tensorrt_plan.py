"""TensorRT's plans: made of an ONNX graph, and run on tensors of PyTorch. Knows no model."""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdetrv2_cli.errors import DeviceError, UsageError

BATCHES: Final = (1, 16, 32)
"""The fewest pictures of a call, how many it shall be quickest for, and the most."""

_log = logging.getLogger(__name__)


def import_tensorrt() -> Any:
    """The module `tensorrt`.

    Raises:
        UsageError: it is not installed, or not whole.
    """
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        raise UsageError(
            f"TensorRT cannot be used here ({error}): pip install 'rtdetrv2[tensorrt]'"
        ) from error
    return tensorrt


def build(
    graph: bytes, device: torch.device, batches: tuple[int, int, int] = BATCHES, *, tf32: bool
) -> bytes:
    """A plan for one kind of GPU, of an ONNX graph whose inputs have the batch first.

    The network is strongly typed: every layer computes in the precision that the graph says. So
    does TensorRT 11 whatever it is asked for, and what earlier ones chose by themselves in float16
    overflowed in this network's norms and box arithmetic.

    Args:
        graph: An ONNX file.
        device: Where it will run.
        batches: See `BATCHES`.
        tf32: Whether float32 may be multiplied with ten bits.

    Raises:
        RuntimeError: TensorRT cannot make one.
    """
    tensorrt = import_tensorrt()
    with _on(device):
        log = _logger(tensorrt)
        builder = tensorrt.Builder(log)
        typed = tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        network = builder.create_network(1 << int(typed))
        parser = tensorrt.OnnxParser(network, log)
        if not parser.parse(graph):
            errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
            raise RuntimeError(errors[0] if errors else "the graph cannot be read")
        profile = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            put_in = network.get_input(index)
            shapes = [(count, *tuple(put_in.shape)[1:]) for count in batches]
            profile.set_shape(put_in.name, *shapes)
        config = builder.create_builder_config()
        config.add_optimization_profile(profile)
        if not tf32:
            config.clear_flag(tensorrt.BuilderFlag.TF32)
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError(log.latest or "no plan could be made")
    return bytes(plan)


class Plan:
    """A plan that is ready to run. Calls must not overlap.

    Args:
        plan: What `build` has made, with this TensorRT and for this kind of GPU.
        device: Where to run it.

    Raises:
        RuntimeError: It was made for another, or by another, or has no room.
    """

    def __init__(self, plan: bytes, device: torch.device) -> None:
        self._tensorrt = tensorrt = import_tensorrt()
        self._device = device
        self._log = _logger(tensorrt)
        with _on(device):
            self._runtime = tensorrt.Runtime(self._log)
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                raise RuntimeError(self._log.latest or "this plan is not for this GPU")
            self._context = self._engine.create_execution_context()
        if self._context is None:
            raise RuntimeError(self._log.latest or f"{device} has too little memory for it")
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        put_in = tensorrt.TensorIOMode.INPUT
        self.inputs = [name for name in names if self._engine.get_tensor_mode(name) == put_in]
        self.outputs = [name for name in names if name not in self.inputs]

    def __call__(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Queues a run in the current stream; the answer is there when that has come so far.

        Args:
            tensors: By input, on the device.

        Returns:
            By output.

        Raises:
            DeviceError: It failed.
        """
        given = {name: tensors[name].contiguous() for name in self.inputs}
        for name, tensor in given.items():
            self._check(self._context.set_input_shape(name, tuple(tensor.shape)))
        answers = {name: self._empty(name) for name in self.outputs}
        for name, tensor in {**given, **answers}.items():
            self._check(self._context.set_tensor_address(name, tensor.data_ptr()))
        self._check(self._context.execute_async_v3(_stream(self._device)))
        return answers

    def _empty(self, name: str) -> Tensor:
        like = np.empty(0, self._tensorrt.nptype(self._engine.get_tensor_dtype(name)))
        shape = tuple(self._context.get_tensor_shape(name))
        return torch.empty(shape, dtype=torch.from_numpy(like).dtype, device=self._device)

    def _check(self, done: bool) -> None:
        if not done:
            raise DeviceError(f"TensorRT failed: {self._log.latest or 'it does not say why'}")


def run_arrays(
    plan: Plan, device: torch.device, arrays: Mapping[str, NDArray[np.generic]]
) -> dict[str, NDArray[np.generic]]:
    """Runs a plan on arrays by input, and waits for those by output."""
    answers = plan({name: torch.from_numpy(array).to(device) for name, array in arrays.items()})
    return {name: tensor.cpu().numpy() for name, tensor in answers.items()}


def _on(device: torch.device) -> Any:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _stream(device: torch.device) -> int:
    current: Any = torch.cuda.current_stream
    return int(current(device).cuda_stream) if device.type == "cuda" else 0


def _logger(tensorrt: Any) -> Any:
    """TensorRT's messages as this package's, errors as what to raise."""

    class Log(tensorrt.ILogger):  # type: ignore[misc]  # TensorRT ships no types
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.latest = ""
            """Error."""

        def log(self, severity: Any, msg: str) -> None:
            severities = tensorrt.ILogger.Severity
            if severity in (severities.ERROR, severities.INTERNAL_ERROR):
                self.latest = msg.strip().partition("\n")[0]
            if severity != severities.VERBOSE:
                _log.debug("TensorRT: %s", msg)

    return Log()
