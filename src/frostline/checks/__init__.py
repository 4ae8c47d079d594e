"""What is wrong with photos: near-duplicates, label errors, quality, shortcuts."""
