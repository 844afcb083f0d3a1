"""What several evaluations share: result files, recordings and journals."""
