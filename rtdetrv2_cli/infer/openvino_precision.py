"""Keeps parts of an OpenVINO graph in float32 where the rest computes in bf16. Loads no torch."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree

if TYPE_CHECKING:
    from openvino import Core, Model, Node

_POINTED_BY: Final = {"GridSample": 1, "GatherElements": 1}
"""Operations that sample, and which of their inputs says where."""
_ROUNDED: Final = {"MatMul", "Convolution", "TopK", "ShapeOf", "Constant", "Parameter"}
"""Operations that locations are made of, whatever precision those are in themselves."""
_MARK: Final = {"name": "DisablePrecisionConversion", "version": "0", "value": "dynamic:f16"}
"""What says in OpenVINO's files that an operation keeps its precision; Python has no other way.

OpenVINO's engine for CPUs heeds it in bf16, too, since 2026.4.
"""


def with_float32_locations(graph: "Model", core: "Core") -> "Model":
    """The graph with boxes, and where it samples, in float32, whatever else it computes in.

    bf16 tells 256 places across a picture at best, and OpenVINO takes the boxes between the layers
    of the decoder for ordinary numbers: rounding them cost four times what all else in bf16 does.
    What is said of an operation is lost where OpenVINO replaces it by another while it compiles;
    `model.folded_attention` takes care that none of these is.
    """
    from openvino import serialize

    names = {node.get_friendly_name() for node in _locating(graph)}
    with TemporaryDirectory() as folder:
        structure, weights = Path(folder, "graph.xml"), Path(folder, "graph.bin")
        serialize(graph, structure, weights)
        root = ElementTree.parse(structure).getroot()
        for layer in root.iter("layer"):
            if layer.get("name") in names:
                _mark(layer)
        return core.read_model(ElementTree.tostring(root), weights.read_bytes())


def _locating(graph: "Model") -> "Iterator[Node]":
    """Each operation between the network's answers and what samples."""
    seen: set[str] = set()
    left = [
        node.input_value(_POINTED_BY[node.get_type_name()]).get_node()
        for node in graph.get_ops()
        if node.get_type_name() in _POINTED_BY
    ]
    while left:
        node = left.pop()
        if node.get_type_name() in _ROUNDED or node.get_friendly_name() in seen:
            continue
        seen.add(node.get_friendly_name())
        yield node
        left += [value.get_node() for value in node.input_values()]


def _mark(layer: ElementTree.Element) -> None:
    marks = layer.find("rt_info")
    if marks is None:
        marks = ElementTree.Element("rt_info")
        layer.insert(int(layer.find("data") is not None), marks)  # their order is fixed
    if all(each.get("name") != _MARK["name"] for each in marks):
        ElementTree.SubElement(marks, "attribute", _MARK)
