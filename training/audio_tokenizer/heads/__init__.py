"""Heads that predict text, pitch or spectra from the quantizer's output, for their losses."""
