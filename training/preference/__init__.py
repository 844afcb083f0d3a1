"""Preference training of a TTS model: generate candidates, rank them with an ASR model, train by DPO."""
