"""CSM of `transformers`, the nearest relative in a library, with the shapes of one of our models."""

from transformers import CsmConfig, CsmForConditionalGeneration, MimiConfig
from transformers.models.csm.configuration_csm import CsmDepthDecoderConfig

from cat_tts import TTSConfig


def csm(config: TTSConfig, depth: int) -> CsmForConditionalGeneration:
    """Build a CSM with random weights that generates without end.

    Its codec is as small as possible, for it is not used.

    Args:
        config: The model whose shapes it gets.
        depth: Number of codebooks.

    Returns:
        The model on the CPU, in evaluation mode.
    """
    outer, inner, codes = config.temporal, config.depth, config.codebook_size + 1
    decoder = CsmDepthDecoderConfig(
        num_codebooks=depth,
        backbone_hidden_size=outer.dim,
        vocab_size=codes,
        hidden_size=inner.dim,
        intermediate_size=inner.ffn_dim,
        num_hidden_layers=inner.num_layers,
        num_attention_heads=inner.num_heads,
        num_key_value_heads=inner.num_kv_heads,
        head_dim=inner.head_dim,
        max_position_embeddings=depth + 1,
    )
    codec = MimiConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=32,
        codebook_dim=8,
        codebook_size=16,
        num_filters=2,
        vector_quantization_hidden_dimension=8,
        upsample_groups=32,
    )
    model = CsmForConditionalGeneration(
        CsmConfig(
            num_codebooks=depth,
            vocab_size=codes,
            text_vocab_size=config.text_vocab_size,
            hidden_size=outer.dim,
            intermediate_size=outer.ffn_dim,
            num_hidden_layers=outer.num_layers,
            num_attention_heads=outer.num_heads,
            num_key_value_heads=outer.num_kv_heads,
            head_dim=outer.head_dim,
            pad_token_id=0,
            bos_token_id=1,
            codebook_pad_token_id=codes - 1,
            codebook_eos_token_id=codes - 2,
            audio_token_id=3,
            audio_eos_token_id=4,
            depth_decoder_config=decoder,
            codec_config=codec,
        )
    )
    return model.eval()
