"""Batches of patches: pixels in one bank, the crops of a row, noise and augmentation, loaders."""
