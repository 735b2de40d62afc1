"""Recipes, which say what to generate: their distributions, their optimiser settings, and the built-in TOML files."""
