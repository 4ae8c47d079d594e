"""The tutorial's seven claims, measured on the photos at hand: one claim, one file."""

from frostline.evidence.claims.evidence import EPOCHS, FAILS, HOLDS, PHOTOS, UNMEASURED, Evidence
from frostline.evidence.claims.measure import CLAIMS, measure

__all__ = ["CLAIMS", "EPOCHS", "FAILS", "HOLDS", "PHOTOS", "UNMEASURED", "Evidence", "measure"]
