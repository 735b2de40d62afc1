"""Sharing zoos: export, the data set card, Croissant metadata, the Hub, and importers of networks in other formats."""
