import pytest

pytest.importorskip("onnx")

from training.synthetic.convert_kokoro import module_path


@pytest.mark.parametrize(
    ("node", "module"),
    [
        ("/encoder/text_encoder/cnn.0/cnn.0.0/Conv_quant", "text_encoder.cnn.0.0"),
        (
            "/decoder/decoder/generator/resblocks.1/convs1.2/Conv_quant",
            "decoder.generator.resblocks.1.convs1.2",
        ),
        ("/encoder/F0.2/norm2/fc/Gemm_MatMul_quant", "predictor.F0.2.norm2.fc"),
        ("/encoder/predictor/text_encoder/lstms.2/LSTM_quant", "predictor.text_encoder.lstms.2"),
        ("/encoder/bert_encoder/MatMul", "bert_encoder"),
    ],
)
def test_nodes_name_their_modules(node: str, module: str) -> None:
    assert module_path(node) == module
