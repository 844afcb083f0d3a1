"""Synthesis of texts of any length: segment by segment, with retries, pauses, a disk cache, and streaming."""
