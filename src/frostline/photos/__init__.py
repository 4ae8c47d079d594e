"""From a folder, table, archive or data set to a list of photos, and from their bytes to pixels."""
