"""Published data sets, from the files that one downloads by hand to tiles and an index."""
