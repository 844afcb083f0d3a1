"""The speaker similarity that papers report: WavLM-large, fine-tuned, under an ECAPA-TDNN.

The weights are `wavlm_large_finetune.pth` of UniSpeech's speaker verification (Seed-TTS-Eval's SIM), which
this project cannot download for you. They contain a fine-tuned WavLM: the one on the hub gives other scores.
The backbone is `transformers`' WavLM under the checkpoint's names, the head that of `eval.metrics.ecapa`.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import WavLMConfig, WavLMModel

from eval.metrics.audio import MetricError, require_finite, resample
from eval.metrics.ecapa import Ecapa, EcapaSizes

STRIDES = (5, 2, 2, 2, 2, 2, 2)
TRAINING_ONLY = "loss_calculator.projection.weight"
BACKBONE = "feature_extract.model."
RENAMED = (
    (r"^feature_extract\.model\.", "wavlm."),
    (r"(conv_layers\.\d+)\.0\.", r"\1.conv."),
    (r"(conv_layers\.\d+)\.2\.1\.", r"\1.layer_norm."),
    (r"^wavlm\.layer_norm", "wavlm.feature_projection.layer_norm"),
    (r"post_extract_proj", "feature_projection.projection"),
    (r"mask_emb", "masked_spec_embed"),
    (r"pos_conv\.0\.weight_g", "pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"pos_conv\.0\.weight_v", "pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"pos_conv\.0\.", "pos_conv_embed.conv."),
    (r"self_attn_layer_norm", "layer_norm"),
    (r"self_attn", "attention"),
    (r"grep_linear", "gru_rel_pos_linear"),
    (r"grep_a", "gru_rel_pos_const"),
    (r"relative_attention_bias", "rel_attn_embed"),
    (r"fc1", "feed_forward.intermediate_dense"),
    (r"fc2", "feed_forward.output_dense"),
    (r"^(layer\d|conv|pooling|bn|linear)\.", r"head.\1."),
    (r"Res2Conv1dReluBn", "res2"),
    (r"Conv1dReluBn1", "first"),
    (r"Conv1dReluBn2", "last"),
    (r"SE_Connect", "gate"),
)
"""Replacements that turn the checkpoint's names into ours, applied in this order."""


class WavLMSpeaker(nn.Module):
    """Maps waveforms at 16 kHz to speaker embeddings, with norms in the published order.

    Args:
        config: Sizes of the backbone.
        sizes: Sizes of the head.
    """

    def __init__(self, config: WavLMConfig, sizes: EcapaSizes) -> None:
        super().__init__()
        self.wavlm = WavLMModel(config)
        self.feature_weight = nn.Parameter(torch.zeros(config.num_hidden_layers + 1))
        self.head = Ecapa(sizes)

    def forward(self, audio: Float[Tensor, "b s"]) -> Float[Tensor, "b e"]:
        """Embed the speakers of signals of equal length: nothing is masked.

        Args:
            audio: [b, s] at 16 kHz.

        Returns:
            Embeddings [b, e]; their length is not normalized.
        """
        audio = F.layer_norm(audio, audio.shape[-1:])  # eps 1e-5; the feature extractor's is 1e-7
        output = self.wavlm(audio, output_hidden_states=True)
        # hidden_states ends with the output before its norm since transformers 5, after it in 4.
        states = torch.stack([*output.hidden_states[:-1], output.last_hidden_state])
        features = torch.einsum("n,nbtd->btd", self.feature_weight.softmax(dim=0), states) + 1e-6
        return self.head(F.instance_norm(features.mT).mT)


def sizes_of(weights: Mapping[str, Tensor]) -> tuple[WavLMConfig, EcapaSizes]:
    """Return the sizes of the network that has these weights.

    Args:
        weights: By the checkpoint's names.

    Returns:
        Sizes of the backbone and of the head.

    Raises:
        KeyError: If a weight that determines a size is missing.
    """
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    convs = [shapes[f"{BACKBONE}feature_extractor.conv_layers.{n}.0.weight"] for n in range(len(STRIDES))]
    bias = shapes[f"{BACKBONE}encoder.layers.0.self_attn.relative_attention_bias.weight"]
    position = shapes[f"{BACKBONE}encoder.pos_conv.0.weight_v"]
    config = WavLMConfig(
        hidden_size=position[0],
        num_hidden_layers=len(weights["feature_weight"]) - 1,
        num_attention_heads=bias[1],
        intermediate_size=shapes[f"{BACKBONE}encoder.layers.0.fc1.weight"][0],
        conv_dim=[shape[0] for shape in convs],
        conv_kernel=[shape[2] for shape in convs],
        conv_stride=STRIDES,
        num_conv_pos_embeddings=position[2],
        num_conv_pos_embedding_groups=position[0] // position[1],
        num_buckets=bias[0],
        max_bucket_distance=800,
        conv_bias=False,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
    )
    sizes = EcapaSizes(
        features=shapes["layer1.conv.weight"][1],
        channels=shapes["layer1.conv.weight"][0],
        pooled=shapes["conv.weight"][0],
        bottleneck=shapes["layer2.SE_Connect.linear1.weight"][0],
        attention=shapes["pooling.linear1.weight"][0],
        embedding=shapes["linear.weight"][0],
    )
    return config, sizes


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the checkpoint's weights under the names of `WavLMSpeaker`.

    Args:
        weights: By the checkpoint's names.
    """
    found = {}
    for name, tensor in weights.items():
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        found[name] = tensor
    return found


def load_speaker(checkpoint: Path) -> WavLMSpeaker:
    """Load the network with a checkpoint's weights, without running any code of the file.

    Args:
        checkpoint: The file wavlm_large_finetune.pth.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        ValueError: If the file is no such checkpoint, or a weight is missing, misshapen or unknown.
    """
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        weights = {name: tensor for name, tensor in content["model"].items() if name != TRAINING_ONLY}
        network = WavLMSpeaker(*sizes_of(weights))
        network.load_state_dict(renamed(weights))
    except (LookupError, TypeError, AttributeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{checkpoint} does not hold the weights of WavLM + ECAPA-TDNN ({reason}); "
            "give wavlm_large_finetune.pth of UniSpeech's speaker verification"
        ) from error
    return network.eval()


class WavLMSpeakerEncoder:
    """Embeds speakers as `eval.metrics.audio.SpeakerEncoder` does, by the network that papers use.

    Audio at other rates is brought to 16 kHz by soxr; where a published number must be met to the third
    decimal, resample as its authors did and give 16 kHz.

    Args:
        checkpoint: The file wavlm_large_finetune.pth.

    Raises:
        ValueError: If the file is no such checkpoint.
    """

    def __init__(self, checkpoint: Path) -> None:
        self._network = load_speaker(Path(checkpoint))

    def embed(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        """Embed the speaker of the whole audio.

        Args:
            audio: [s] at `sample_rate`.
            sample_rate: In Hz.

        Returns:
            A unit-length embedding [256].

        Raises:
            MetricError: If the audio is silent, not finite, or shorter than 0.1 s.
        """
        require_finite(audio)
        if len(audio) < 0.1 * sample_rate or not np.any(audio):
            raise MetricError("similarity is undefined: the audio is silent or shorter than 0.1 s")
        with torch.inference_mode():
            embedding = self._network(torch.tensor(resample(audio, sample_rate))[None])[0].numpy()
        return embedding / np.linalg.norm(embedding)

    def similarity(self, first: np.ndarray, first_rate: int, second: np.ndarray, second_rate: int) -> float:
        """Return the cosine of two embeddings, which are not centred.

        Args:
            first: [s] at `first_rate`.
            first_rate: In Hz.
            second: [t] at `second_rate`.
            second_rate: In Hz.

        Raises:
            MetricError: As `embed`.
        """
        return float(self.embed(first, first_rate) @ self.embed(second, second_rate))
