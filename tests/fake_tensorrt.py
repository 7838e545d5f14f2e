"""A stand-in for TensorRT, on the CPU: the part of its interface that is used here.

Names, arguments and return values are those of TensorRT 11's documentation; what it is told is
checked as that says. A plan is the ONNX graph, which ONNX Runtime computes at the addresses that it
is given. Whether TensorRT itself takes the graph is not known from it.
"""

import ctypes
import sys
from enum import Enum, IntEnum
from math import prod
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime
import torch

MAGIC = b"plan of a stand-in:"

_NAMES = {"uint8": "uint8", "float": "float32", "int64": "int64"}


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(Enum):
    TF32 = 7


class TensorIOMode(Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class ILogger:
    Severity = Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")


class Builder:
    made: ClassVar[list["Builder"]] = []

    def __init__(self, logger):
        assert isinstance(logger, ILogger)
        self.logger = logger
        self.made.append(self)

    def create_network(self, flags=0):
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        self.network = Network()
        return self.network

    def create_builder_config(self):
        self.config = SimpleNamespace(flags={BuilderFlag.TF32}, profiles=[])
        self.config.clear_flag = self.config.flags.discard
        self.config.add_optimization_profile = self.config.profiles.append
        return self.config

    def create_optimization_profile(self):
        return Profile()

    def build_serialized_network(self, network, config):
        (profile,) = config.profiles
        for each in network.inputs:
            least, usual, most = profile.shapes[each.name]
            for real, *three in zip(each.shape, least, usual, most, strict=True):
                assert three == sorted(three)
                assert real == -1 or {*three} == {real}
        self.logger.log(ILogger.Severity.WARNING, "a warning that is no error")
        profiles = repr(profile.shapes).encode()
        return memoryview(b"\n".join([MAGIC, profiles, network.graph]))


class Profile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, input, min, opt, max):
        self.shapes[input] = (min, opt, max)


class Network:
    def read(self, graph):
        self.graph = graph
        model = onnx.load_from_string(graph)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        self.inputs = []
        for each in model.graph.input:
            dims = each.type.tensor_type.shape.dim
            shape = tuple(-1 if dim.dim_param else dim.dim_value for dim in dims)
            self.inputs.append(SimpleNamespace(name=each.name, shape=shape))

    @property
    def num_inputs(self):
        return len(self.inputs)

    def get_input(self, index):
        return self.inputs[index]


class OnnxParser:
    error: str | None = None

    def __init__(self, network, logger):
        self.network = network

    def parse(self, graph):
        if self.error is None:
            self.network.read(graph)
        return self.error is None

    @property
    def num_errors(self):
        return int(self.error is not None)

    def get_error(self, index):
        return SimpleNamespace(desc=lambda: self.error)


class Runtime:
    def __init__(self, logger):
        self.logger = logger

    def deserialize_cuda_engine(self, plan):
        if not plan.startswith(MAGIC):
            self.logger.log(ILogger.Severity.ERROR, "the plan is of another version\nand more")
            return None
        _, profiles, graph = plan.split(b"\n", 2)
        return CudaEngine(eval(profiles), graph)


class CudaEngine:
    def __init__(self, profiles, graph):
        self.profiles = profiles
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        self.tensors = {each.name: each for each in (*outputs, *inputs)}  # in no useful order
        self.modes = dict.fromkeys([each.name for each in inputs], TensorIOMode.INPUT)

    @property
    def num_io_tensors(self):
        return len(self.tensors)

    def get_tensor_name(self, index):
        return [*self.tensors][index]

    def get_tensor_mode(self, name):
        return self.modes.get(name, TensorIOMode.OUTPUT)

    def get_tensor_dtype(self, name):
        return _NAMES[self.tensors[name].type[len("tensor(") : -1]]

    def create_execution_context(self):
        return ExecutionContext(self)


class ExecutionContext:
    runs: ClassVar[list[dict[str, tuple[int, ...]]]] = []

    def __init__(self, engine):
        self.engine, self.shapes, self.addresses = engine, {}, {}

    def set_input_shape(self, name, shape):
        least, _, most = self.engine.profiles[name]
        fits = all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))
        if fits:
            self.shapes[name] = shape
        return fits

    def get_tensor_shape(self, name):
        batch = next(iter(self.shapes.values()))[0]
        dims = self.engine.tensors[name].shape
        return self.shapes.get(name) or (batch, *dims[1:])

    def set_tensor_address(self, name, address):
        assert address % 4 == 0
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream_handle):
        engine = self.engine
        given = {name: self._memory(name) for name in engine.modes}
        self.runs.append(dict(self.shapes))
        outputs = [name for name in engine.tensors if name not in engine.modes]
        for name, answer in zip(outputs, engine.session.run(outputs, given), strict=True):
            self._memory(name)[...] = answer
        return True

    def _memory(self, name):
        shape = tuple(self.get_tensor_shape(name))
        dtype = np.dtype(engine_dtype := self.engine.get_tensor_dtype(name))
        size = prod(shape) * dtype.itemsize
        held = (ctypes.c_uint8 * size).from_address(self.addresses[name])
        return np.frombuffer(held, engine_dtype).reshape(shape)


def install(monkeypatch) -> ModuleType:
    """`import tensorrt` gives it, and the CPU is taken for a GPU with tensor cores."""
    module = ModuleType("tensorrt")
    for name in (
        *("NetworkDefinitionCreationFlag", "BuilderFlag", "TensorIOMode", "ILogger", "Builder"),
        *("OnnxParser", "Runtime"),
    ):
        setattr(module, name, globals()[name])
    module.nptype = np.dtype
    module.__version__ = "11.0.0"
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    where = "rtdetrv2_cli.infer.tensorrt_engine"
    cpu = torch.device("cpu")
    monkeypatch.setattr(f"{where}.choose_gpu", lambda _: cpu)
    monkeypatch.setattr(f"{where}.describe_gpu", lambda _: ("A stand-in", (8, 6)))
    monkeypatch.setattr(
        f"{where}.choose_precision", lambda dtype, _: "fp16" if dtype == "auto" else dtype
    )
    monkeypatch.setattr(OnnxParser, "error", None)
    monkeypatch.setattr(Builder, "made", [])
    monkeypatch.setattr(ExecutionContext, "runs", [])
    return module
