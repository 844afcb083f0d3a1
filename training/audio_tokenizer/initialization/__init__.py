"""Encoder, quantizer and spectral head calculated from data before the training."""
