"""Seed-TTS-Eval: synthesis of a list, scores and tables."""
