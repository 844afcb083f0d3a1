"""Who speaks: speaker embeddings that are computed from codes."""
