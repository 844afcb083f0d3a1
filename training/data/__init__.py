"""Corpora as manifests and code shards: readers, checks, licenses, splits and mixtures."""
