"""What a study measures beside accuracy: claims, robustness, causes of errors, learning curves."""
