"""Makes a zoo from a recipe: planning, the training loop, generation by workers, and verification."""
