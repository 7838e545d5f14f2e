"""What stays in float32 in a graph that computes in bf16."""

from dataclasses import replace

import numpy as np
import pytest
from calibrated import picture, randomise

from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.types import Size

openvino_graph = pytest.importorskip("rtdetrv2_cli.infer.openvino_graph", reason="needs OpenVINO")

SIZE = Size(64, 96)


@pytest.fixture(scope="module", params=["default", "discrete"])
def graphs(request, tiny_config):
    """As the engine has it, and with what is said of its operations."""
    from rtdetrv2_cli.infer.openvino_engine import core
    from rtdetrv2_cli.infer.openvino_precision import with_float32_locations

    config = replace(tiny_config, decoder_method=request.param)
    model = randomise(RtDetrV2ForObjectDetection(config), size=SIZE)
    graph = openvino_graph.raw_graph(model, SIZE)
    return graph, with_float32_locations(graph, core())


def marked(graph) -> list[str]:
    """The kinds of the operations in which precision is kept."""
    mark = "DisablePrecisionConversion_0"
    return [node.get_type_name() for node in graph.get_ops() if mark in node.get_rt_info()]


def test_boxes_and_locations_stay_in_float32_and_the_network_does_not(graphs):
    before, after = graphs
    assert marked(before) == []
    kinds = marked(after)
    layers = 2
    assert kinds.count("Sigmoid") == layers  # of the boxes that a layer looks at
    assert kinds.count("Log") == layers - 1  # of boxes that are refined
    assert {"Gather", "Multiply", "Add"} <= {*kinds}
    assert not {"MatMul", "Convolution", "GridSample", "Softmax"} & {*kinds}


def test_files_say_so_themselves(graphs, tmp_path):
    from rtdetrv2_cli.infer.openvino_engine import core
    from rtdetrv2_cli.infer.openvino_precision import with_float32_locations

    before, after = graphs
    openvino_graph.save(before, tmp_path / "a.xml", {"name": "a"})
    read = core().read_model(tmp_path / "a.xml")
    again = with_float32_locations(read, core())
    assert sorted(marked(again)) == sorted(marked(read)) == sorted(marked(after))
    assert read.get_rt_info(["rtdetrv2", "name"]).astype(str) == "a"


def test_its_answers_are_the_same(graphs):
    from rtdetrv2_cli.infer.openvino_engine import core

    x = picture(*SIZE, batch=2).permute(0, 2, 3, 1).mul(255).byte().numpy()
    before, after = (
        core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])
        for graph in graphs
    )
    for expected, found in zip(before.values(), after.values(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
