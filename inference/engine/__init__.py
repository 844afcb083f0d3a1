"""Continuous batching: the engine, its jobs and their results, and rules that stop runaway speech."""
