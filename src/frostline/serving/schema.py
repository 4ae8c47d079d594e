"""The shapes of a server's answers, for its OpenAPI document. Answers are built as plain dictionaries; tests hold them to this."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Fault(BaseModel):
    """What went wrong."""

    code: str = Field(description="A word for programs: too_large, not_a_photo, truncated, busy, ...")
    message: str = Field(description="A sentence for people.")


class Refusal(BaseModel):
    """Any answer but 200."""

    error: Fault


class Share(BaseModel):
    """A class and how sure the model is of it."""

    class_: str = Field(alias="class")
    confidence: float = Field(ge=0, le=1, description="Calibrated probability.")


class Neighbour(BaseModel):
    """A training photo that resembles the one asked about."""

    class_: str = Field(alias="class")
    path: str = Field(description="Its file in the study's folder of photos.")
    similarity: float = Field(ge=-1.001, le=1.001, description="Cosine of the angle between the features.")


class Result(BaseModel):
    """One photo: either `predicted` and what belongs to it, or `error`."""

    name: str = Field(description="The file's name as sent, or its address; empty where there is none.")
    predicted: str | None = None
    confidence: float | None = Field(default=None, ge=0, le=1)
    top: list[Share] | None = Field(default=None, description="The most likely classes, the likeliest first.")
    unsure: bool | None = Field(
        default=None, description="Whether the confidence is below the threshold, where there is one."
    )
    neighbours: list[Neighbour] | None = None
    error: Fault | None = None


class ModelName(BaseModel):
    """Which model answered."""

    id: str = Field(description="Begins the SHA-256 of its weights.")
    strategy: str


class Answers(BaseModel):
    """A result for each photo, in the order sent."""

    model: ModelName
    results: list[Result]


class Explanation(BaseModel):
    """Where in a photo the evidence for a class stands."""

    model: ModelName
    predicted: str
    confidence: float
    class_: str = Field(alias="class", description="The class that the map is of.")
    method: str
    map: list[list[int]] = Field(description="0 to 255, at the network's own resolution, row by row.")
    overlay: str = Field(description="The map laid over the photo: a data: address of a JPEG.")


class About(BaseModel):
    """The model in use."""

    id: str
    strategy: str
    backbone: str
    classes: list[str]
    line: int = Field(description="Layers below the freeze line.")
    layers: int
    image_size: int
    figures: dict[str, Any] = Field(description="Accuracy and the like, with what they were measured on.")
    card: str = Field(description="The model card, Markdown.")
    thresholds: list[dict[str, Any]] = Field(
        description="Confidence from which a share of photos (precision) is right, with how many are kept; empty where none was found."
    )
    neighbours: int = Field(
        description="Training photos that resembling ones are looked for among; 0 where the bundle keeps none."
    )
    explanations: bool
    limits: dict[str, float]
    frostline: str


class Reloaded(BaseModel):
    """Which model answers from here on."""

    model: ModelName


class State(BaseModel):
    """A word on the server's health."""

    status: str
