"""Ablations: dropout, int8 weights and scaled-down tokenizers."""
