"""Posteriors over the weights of networks: one method per file, K posteriors at once."""
