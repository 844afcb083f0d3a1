"""Synthesizer and service: loading models, single requests and batches, best-of-N, saving, adaptation."""
