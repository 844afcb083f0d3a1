"""Generate frames of codes: the frame decoder, its two Transformers step by step, and sampling."""
