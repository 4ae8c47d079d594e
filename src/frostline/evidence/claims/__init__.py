"""The tutorial's seven claims, measured on the photos at hand: one claim, one file."""

from frostline.evidence.claims.evidence import CONTRADICTED, PHOTOS, SUPPORTED, UNTESTED, Evidence
from frostline.evidence.claims.measure import CLAIMS, measure

__all__ = ["CLAIMS", "CONTRADICTED", "PHOTOS", "SUPPORTED", "UNTESTED", "Evidence", "measure"]
