"""A network as a file for other programs, checked against PyTorch before it gets its name."""
