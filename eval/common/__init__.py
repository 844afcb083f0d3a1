"""What evaluations share: result files, lists of recordings, and journals of finished work."""
