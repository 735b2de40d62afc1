"""Learns from zoos: networks that read the weights of networks."""
