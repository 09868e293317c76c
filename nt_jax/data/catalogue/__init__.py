"""Which images there are: photographs, pairs, layouts of folders, prepared data, references."""
