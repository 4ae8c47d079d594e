"""A model ready to use: saved, loaded, asked, explained."""
