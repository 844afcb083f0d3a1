"""Tokenizers of text: SentencePiece, phonemes, and those of Hugging Face."""
