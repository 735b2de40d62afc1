"""Posteriors over the weights of networks: one method a file, K posteriors at once."""
