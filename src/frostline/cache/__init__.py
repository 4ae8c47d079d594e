"""What can be made again: the cache folder, its stores of rows, marks of use, its limit, and downloads."""
