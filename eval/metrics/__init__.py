"""Metrics: word errors, speaker similarity, intelligibility and spectral distances."""
