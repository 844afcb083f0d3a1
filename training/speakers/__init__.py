"""The training of voice vectors: utterances by speaker, teacher embeddings, speaker verification."""
