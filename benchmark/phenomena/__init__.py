"""What symmetry does to everything else, one phenomenon a file."""
