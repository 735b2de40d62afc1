"""Zoos for others: export, import, the data set card, Croissant, the Hub, and importers of other people's zoos."""
