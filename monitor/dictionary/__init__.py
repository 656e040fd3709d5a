"""What features are: sparse autoencoders, their files, training, statistics and search."""
