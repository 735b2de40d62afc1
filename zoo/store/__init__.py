"""Zoos on disk: the manifest, its columns and shards, and the `Zoo` that reads them; recipes are JSON here."""
