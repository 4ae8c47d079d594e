"""Simulated studies whose truth is known: one file for each kind of statement that frostline makes."""
