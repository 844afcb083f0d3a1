"""Audio after codecs, by bitrate."""
