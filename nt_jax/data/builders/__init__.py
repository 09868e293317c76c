"""Published data sets, from the files that one downloads by hand to TFDS data sets of tiles."""
