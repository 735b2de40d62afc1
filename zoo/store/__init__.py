"""Zoos on disk: the manifest, its columns and shards, and the `Zoo` that reads them. Recipes are plain JSON here."""
