"""Text before synthesis: normalization, segmentation of long texts, and expected duration."""
