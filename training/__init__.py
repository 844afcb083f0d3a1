"""Make the models: corpus, code shards, losses and the straight training loops."""
