"""Quality of audio after codecs, by bitrate."""
