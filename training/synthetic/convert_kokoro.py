"""Convert Kokoro-82M from its int8 ONNX export to the names and shapes of the PyTorch model.

The integers stay integers, so that the file is small; `teacher_kokoro.dequantize` turns them into float32.
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
"""Modules of the predictor whose path in the export does not name the predictor."""
SUFFIX = re.compile(r"/(Gemm_MatMul|MatMul|Conv|ConvTranspose|Gemm|LSTM)(_quant)?$")
FLOATS = re.compile(r"(encoder|decoder)\..*\.(bias|weight|gamma|beta|alpha[12]\.\d)$")

Stored = dict[str, np.ndarray]


class Graph:
    """Nodes and constants of an ONNX export, and which node reads which value."""

    def __init__(self, path: Path) -> None:
        graph = onnx.load(str(path)).graph
        self.nodes = list(graph.node)
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.producers = {output: node for node in self.nodes for output in node.output}
        self.readers: dict[str, list] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def scale(self, node) -> np.ndarray:
        """Return the scale of the weight of an integer product, which is applied after the product.

        Raises:
            ValueError: no multiplication by a scale follows.
        """
        for _ in range(5):
            following = self.readers[node.output[0]][0]
            if following.op_type == "Mul" and following.name.endswith("output_scale_mul"):
                (scales,) = (name for name in following.input if name != node.output[0])
                (constant,) = (name for name in self.producers[scales].input if name in self.constants)
                return self.constants[constant]
            node = following
        raise ValueError(f"{node.name}: no scale follows this product; the export is another one")


def convert(path: Path, config: dict) -> dict[str, Tensor]:
    """Read all weights of `kokoro.KModel` from its export, weight norm removed.

    Args:
        path: the ONNX file.
        config: Kokoro's config.json.

    Returns:
        Weights by name: uint8 or int8 with NAME.scale and NAME.zero beside them, or float16.

    Raises:
        ValueError: a weight is missing or has another shape.
    """
    graph, stored = Graph(path), {}
    for node in graph.nodes:
        if node.op_type in PRODUCTS and node.input[1] in graph.constants:
            _read_product(graph, node, stored)
        elif node.op_type in ("Conv", "ConvTranspose", "MatMul") and node.input[1] in graph.constants:
            weight = graph.constants[node.input[1]]
            name = f"{module_path(node.name)}.weight"
            stored.setdefault(name, weight.T if node.op_type == "MatMul" else weight)
        elif node.op_type == "DynamicQuantizeLSTM":
            _read_lstm(graph, node, stored)
        elif node.op_type == "DequantizeLinear":
            table = graph.producers[node.input[0]].input[0]
            name = table.removeprefix("encoder.").replace("_quantized", "")
            numbers = (graph.constants[input] for input in (table, node.input[1], node.input[2]))
            _store(stored, name, *numbers)
    for name, constant in graph.constants.items():
        if constant.dtype == np.float32 and FLOATS.match(name):
            short = name.removeprefix("decoder.").removeprefix("encoder.")
            stored.setdefault(short, constant)
    return _fit_to_model(stored, config)


def module_path(node: str) -> str:
    """Return the module of a node: of `/encoder/text_encoder/cnn.0/cnn.0.0/Conv`, `text_encoder.cnn.0.0`."""
    parts: list[str] = []
    for part in SUFFIX.sub("", node.strip("/")).split("/")[1:]:
        if parts and (part == parts[-1] or part.startswith(f"{parts[-1]}.")):
            parts.pop()
        parts.append(part)
    path = ".".join(parts)
    return f"predictor.{path}" if path.split(".")[0] in PREDICTOR else path


def _read_product(graph: Graph, node, stored: Stored) -> None:
    weight, zero, scale = graph.constants[node.input[1]], graph.constants[node.input[3]], graph.scale(node)
    if node.op_type == "MatMulInteger":
        weight = weight.T
    _store(stored, f"{module_path(node.name)}.weight", weight, scale, zero)


def _read_lstm(graph: Graph, node, stored: Stored) -> None:
    """Read both directions of an LSTM.

    ONNX orders the gates input, output, forget, cell; PyTorch input, forget, cell, output.
    """
    inputs = {i: graph.constants[name] for i, name in enumerate(node.input) if name in graph.constants}
    path = module_path(node.name)
    for direction, suffix in enumerate(("", "_reverse")):
        for kind, weight, scale, zero in (("ih", 1, 8, 9), ("hh", 2, 10, 11)):
            rows = _reorder_gates(inputs[weight][direction].T)
            name = f"{path}.weight_{kind}_l0{suffix}"
            _store(stored, name, rows, inputs[scale][direction], inputs[zero][direction])
        for kind, bias in zip(("ih", "hh"), np.split(inputs[3][direction], 2), strict=True):
            stored[f"{path}.bias_{kind}_l0{suffix}"] = _reorder_gates(bias)


def _reorder_gates(rows: np.ndarray) -> np.ndarray:
    i, o, f, c = np.split(rows, 4)
    return np.concatenate([i, f, c, o])


def _store(stored: Stored, name: str, weight: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> None:
    stored[name] = weight
    stored[name + SCALE] = np.atleast_1d(scale).astype(np.float32)
    stored[name + ZERO] = np.atleast_1d(zero).astype(np.int16)


def _fit_to_model(stored: Stored, config: dict) -> dict[str, Tensor]:
    """Return the model's weights in its shapes; those without effect, which the export lacks, are added."""
    result: dict[str, Tensor] = {}
    for name, wanted in skeleton(config).state_dict().items():
        if name not in stored and (".norm." in name or ".pooler." in name):
            result[name] = wanted.half() if ".norm." in name else torch.zeros_like(wanted).half()
            continue
        if name not in stored or stored[name].size != wanted.numel():
            raise ValueError(f"{name} is missing, or not {tuple(wanted.shape)}: the export is another one")
        tensor = torch.from_numpy(stored[name].reshape(tuple(wanted.shape)).copy())
        result[name] = tensor.half() if tensor.is_floating_point() else tensor
        if name + SCALE in stored:
            result |= {name + part: torch.from_numpy(stored[name + part]) for part in (SCALE, ZERO)}
    return result
