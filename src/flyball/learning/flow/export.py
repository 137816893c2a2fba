"""The policy file: the network with its normalisation and every Euler step, unrolled into one ONNX graph.

In: a trained ``ChunkNetwork``. Out: bytes, the same for the same weights. Inputs: ``features`` (n, f) and, for a flow,
``noise`` (n, h, b); output: ``codes`` (n, h, b). Written node by node, so that no exporter stands between the weights
and what runs on the robot.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from flyball.learning.flow.network import ChunkNetwork, time_embedding

OPSET, IR_VERSION = 17, 8


class _Graph:
    """Nodes and constants in the order they are added; every method returns the name of a value."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, op: str, *inputs: str, name: str = "") -> str:
        name = name or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name))
        return name

    def silu(self, x: str) -> str:
        return self.node("Mul", x, self.node("Sigmoid", x))


def to_onnx(network: ChunkNetwork, metadata: Mapping[str, str]) -> bytes:
    """The policy file.

    Args:
      network: in evaluation, with the weights to deploy.
      metadata: written into the file, string to string.
    """
    config, (h, b) = network.config, network.chunk
    f = len(network.feature_mean)
    with torch.no_grad():
        first = network.layers[0]
        weight, bias = first.weight, first.bias
        k = config.integration_steps
        embedding = time_embedding(torch.arange(k) / k, config.time_features)
        # time is known when the graph is written: its share of the first layer becomes a bias per Euler step
        step_bias = bias + embedding @ weight[:, f + network.size :].T if config.method == "flow" else bias[None]
    g = _Graph()

    def array(x: torch.Tensor) -> NDArray[np.float32]:
        return x.detach().numpy().astype(np.float32)

    constant = {
        name: g.constant(name, array(value))
        for name, value in [*network.named_buffers(), ("in_features", weight[:, :f].T)]
    }
    hidden = [
        (g.constant(f"hidden_{i}_weight", array(m.weight.T)), g.constant(f"hidden_{i}_bias", array(m.bias)))
        for i, m in [*enumerate(network.layers)][1:]
    ]
    head = (g.constant("head_weight", array(network.head.weight.T)), g.constant("head_bias", array(network.head.bias)))
    shape = g.constant("shape", np.array([-1, h, b], dtype=np.int64))

    def rest(x: str) -> str:
        for w, c in hidden:
            x = g.node("Gemm", g.silu(x), w, c)
        return g.node("Gemm", g.silu(x), *head)

    normal = g.node("Div", g.node("Sub", "features", constant["feature_mean"]), constant["feature_scale"])
    seen = g.node("MatMul", normal, constant["in_features"])
    biases = [g.constant(f"step_{i}_bias", array(row)) for i, row in enumerate(step_bias)]
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", f])]
    if config.method == "regression":
        x = rest(g.node("Add", seen, biases[0]))
    else:
        inputs.append(helper.make_tensor_value_info("noise", TensorProto.FLOAT, ["n", h, b]))
        in_chunk = g.constant("in_chunk", array(weight[:, f : f + network.size].T))
        x = g.node("Reshape", "noise", g.constant("flat", np.array([-1, h * b], dtype=np.int64)))
        for i, step in enumerate(biases):
            end = rest(g.node("Add", g.node("Add", seen, step), g.node("MatMul", x, in_chunk)))
            share = g.constant(f"step_{i}_share", np.array(1 / (k - i), dtype=np.float32))
            x = g.node("Add", x, g.node("Mul", g.node("Sub", end, x), share))
    scaled = g.node("Add", g.node("Mul", x, constant["code_scale"]), constant["code_mean"])
    g.node("Reshape", scaled, shape, name="codes")
    output = helper.make_tensor_value_info("codes", TensorProto.FLOAT, ["n", h, b])
    graph = helper.make_graph(g.nodes, "policy", inputs, [output], g.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="flyball")
    model.ir_version = IR_VERSION
    helper.set_model_props(model, dict(sorted(metadata.items())))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)
