"""A graph made into a bundle and proven: answers of networks, golden inputs, what ran in what."""
