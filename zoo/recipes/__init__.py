"""What to generate: recipes, their distributions and optimiser settings, and the built-in TOML files."""
