"""From a recipe to a zoo: the training loop, generation by workers, and verification."""
