"""Licences of published weights: what they ask of somebody who passes a model on.

A fine-tuned model contains the weights that it started from, so their licence travels with it. The names are timm's
and the hub's. The rows say what the licence's own text says of passing on; they are no legal advice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Passing = Literal["free", "conditions", "forbidden for business", "unknown"]


@dataclass(frozen=True)
class Licence:
    """One licence."""

    title: str
    """As people write it."""
    passing: Passing
    """`free`: with its text and notices kept. `conditions`: with more than that. `forbidden for business`: research or
    other non-commercial use only. `unknown`: read it."""
    asks: str = ""
    """What it asks beyond its text and notices, in a few words."""
    url: str = ""
    """Where its text is."""

    @property
    def asks_first(self) -> bool:
        """Whether a person has to accept it before the model is passed on."""
        return self.passing in ("conditions", "forbidden for business")


_RESEARCH = "research use only, no commercial use"
_BUSINESS: Passing = "forbidden for business"
_CC = "https://creativecommons.org/licenses"
_AMLR = "https://github.com/apple/ml-mobileclip/blob/main/LICENSE_MODELS"

LICENCES: dict[str, Licence] = {
    "apache-2.0": Licence("Apache-2.0", "free"),
    "mit": Licence("MIT", "free"),
    "bsd-3-clause": Licence("BSD-3-Clause", "free"),
    "cc-by-4.0": Licence("CC-BY-4.0", "free"),
    "cc-by-nc-4.0": Licence("CC-BY-NC-4.0", _BUSINESS, "no commercial use", f"{_CC}/by-nc/4.0"),
    "dinov3-license": Licence(
        "DINOv3 License",
        "conditions",
        "pass it on under the same agreement, with a copy of it",
        "https://ai.meta.com/resources/models-and-libraries/dinov3-license",
    ),
    "apple-amlr": Licence(
        "Apple AMLR", _BUSINESS, f"{_RESEARCH}; pass it on with a copy of the agreement and Apple's notice", _AMLR
    ),
    "fair-noncommercial-research-license": Licence("FAIR Noncommercial Research License", _BUSINESS, _RESEARCH),
}
"""A further licence is a row; one that has none counts as conditional where it is named: somebody has to read it."""

_NAMELESS = ("", "unknown", "other")


def licence(name: str) -> Licence:
    """A licence by timm's name of it."""
    if name.lower() in _NAMELESS:
        return Licence("not known", "unknown")
    return LICENCES.get(name.lower(), Licence(name, "conditions", "terms of its own: read them"))


def named(name: str) -> str:
    """A licence with what it asks, for a sentence: ``DINOv3 License (pass it on under the same agreement, ...)``."""
    found = licence(name)
    asks = "; ".join(part for part in (found.asks, found.url) if part)
    return f"{found.title} ({asks})" if asks else found.title
