"""Models that run without frostline, with proof; how fast they are; the hub."""
