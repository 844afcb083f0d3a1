"""Kokoro-82M out of its int8 ONNX export: integers and scales under the names of the PyTorch model.

The integers stay integers, so that the file is small; `teacher_kokoro.dequantised` makes float32 of them.
Running the export itself would round the activations too, which costs quality (DNSMOS 3.32, not 3.47).
"""

import re
from pathlib import Path

import numpy as np
import onnx  # pyright: ignore[reportMissingImports]
import torch
from onnx import numpy_helper  # pyright: ignore[reportMissingImports]
from torch import Tensor

from training.synthetic.teacher_kokoro import SCALE, ZERO, skeleton

PRODUCTS = ("MatMulInteger", "ConvInteger")
PREDICTOR = ("F0", "N", "F0_proj", "N_proj", "shared", "lstm", "duration_proj")
"""Modules whose place in the export does not say that they are the predictor's."""
SUFFIX = re.compile(r"/(Gemm_MatMul|MatMul|Conv|ConvTranspose|Gemm|LSTM)(_quant)?$")
FLOATS = re.compile(r"(encoder|decoder)\..*\.(bias|weight|gamma|beta|alpha[12]\.\d)$")

Stored = dict[str, np.ndarray]


class Graph:
    """The export's nodes and constants, and who reads what."""

    def __init__(self, path: Path) -> None:
        graph = onnx.load(str(path)).graph
        self.nodes = list(graph.node)
        self.constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
        self.makers = {output: node for node in self.nodes for output in node.output}
        self.readers: dict[str, list] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def scale(self, node) -> np.ndarray:
        """The weight's scale of an integer product: it comes back where the sum is made real again."""
        for _ in range(5):
            following = self.readers[node.output[0]][0]
            if following.op_type == "Mul" and following.name.endswith("output_scale_mul"):
                (scales,) = (name for name in following.input if name != node.output[0])
                (mine,) = (name for name in self.makers[scales].input if name in self.constants)
                return self.constants[mine]
            node = following
        raise ValueError(f"{node.name}: no scale follows this product; the export is another one")


def convert(path: Path, config: dict) -> dict[str, Tensor]:
    """All weights of `kokoro.KModel`, weight norm removed: uint8 or int8 with NAME.scale and NAME.zero, or
    float16.

    Raises ValueError where a weight is missing or has another shape.
    """
    graph, found = Graph(path), {}
    for node in graph.nodes:
        if node.op_type in PRODUCTS and node.input[1] in graph.constants:
            _product(graph, node, found)
        elif node.op_type in ("Conv", "ConvTranspose", "MatMul") and node.input[1] in graph.constants:
            weight = graph.constants[node.input[1]]
            found.setdefault(f"{place(node.name)}.weight", weight.T if node.op_type == "MatMul" else weight)
        elif node.op_type == "DynamicQuantizeLSTM":
            _lstm(graph, node, found)
        elif node.op_type == "DequantizeLinear":
            table = graph.makers[node.input[0]].input[0]
            name = table.removeprefix("encoder.").replace("_quantized", "")
            numbers = (graph.constants[input] for input in (table, node.input[1], node.input[2]))
            _keep(found, name, *numbers)
    for name, constant in graph.constants.items():
        if constant.dtype == np.float32 and FLOATS.match(name):
            short = name.removeprefix("decoder.").removeprefix("encoder.")
            found.setdefault(short, constant)
    return _fitted(found, config)


def place(node: str) -> str:
    """The module a node belongs to: `/encoder/text_encoder/cnn.0/cnn.0.0/Conv` is `text_encoder.cnn.0.0`."""
    parts: list[str] = []
    for part in SUFFIX.sub("", node.strip("/")).split("/")[1:]:
        if parts and (part == parts[-1] or part.startswith(f"{parts[-1]}.")):
            parts.pop()
        parts.append(part)
    path = ".".join(parts)
    return f"predictor.{path}" if path.split(".")[0] in PREDICTOR else path


def _product(graph: Graph, node, found: Stored) -> None:
    weight, zero, scale = graph.constants[node.input[1]], graph.constants[node.input[3]], graph.scale(node)
    if node.op_type == "MatMulInteger":
        weight = weight.T
    _keep(found, f"{place(node.name)}.weight", weight, scale, zero)


def _lstm(graph: Graph, node, found: Stored) -> None:
    """Both directions; ONNX orders gates input, output, forget, cell, PyTorch input, forget, cell, output."""
    inputs = {i: graph.constants[name] for i, name in enumerate(node.input) if name in graph.constants}
    path = place(node.name)
    for direction, suffix in enumerate(("", "_reverse")):
        for kind, weight, scale, zero in (("ih", 1, 8, 9), ("hh", 2, 10, 11)):
            rows = _gates(inputs[weight][direction].T)
            name = f"{path}.weight_{kind}_l0{suffix}"
            _keep(found, name, rows, inputs[scale][direction], inputs[zero][direction])
        for kind, bias in zip(("ih", "hh"), np.split(inputs[3][direction], 2), strict=True):
            found[f"{path}.bias_{kind}_l0{suffix}"] = _gates(bias)


def _gates(rows: np.ndarray) -> np.ndarray:
    i, o, f, c = np.split(rows, 4)
    return np.concatenate([i, f, c, o])


def _keep(found: Stored, name: str, weight: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> None:
    found[name] = weight
    found[name + SCALE] = np.atleast_1d(scale).astype(np.float32)
    found[name + ZERO] = np.atleast_1d(zero).astype(np.int16)


def _fitted(found: Stored, config: dict) -> dict[str, Tensor]:
    """What of `found` the model has, in its shapes, and weights without effect, which the export lost."""
    result: dict[str, Tensor] = {}
    for name, wanted in skeleton(config).state_dict().items():
        if name not in found and (".norm." in name or ".pooler." in name):
            result[name] = wanted.half() if ".norm." in name else torch.zeros_like(wanted).half()
            continue
        if name not in found or found[name].size != wanted.numel():
            raise ValueError(f"{name} is missing, or not {tuple(wanted.shape)}: the export is another one")
        tensor = torch.from_numpy(found[name].reshape(tuple(wanted.shape)).copy())
        result[name] = tensor.half() if tensor.is_floating_point() else tensor
        if name + SCALE in found:
            result |= {name + part: torch.from_numpy(found[name + part]) for part in (SCALE, ZERO)}
    return result
