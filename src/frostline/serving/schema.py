"""The types of a server's requests and answers: what the routes return, and what the OpenAPI document promises."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from fastapi.responses import Response
from pydantic import BaseModel, Field

# ---- answers ---------------------------------------------------------------------------------------------------------


class Fault(BaseModel):
    """What went wrong."""

    code: str = Field(description="A word for programs: too_large, not_a_photo, truncated, busy, ...")
    message: str = Field(description="A sentence for people.")


class Refusal(BaseModel):
    """Any answer but 200."""

    error: Fault


class Share(BaseModel):
    """A class and its probability."""

    class_: str = Field(serialization_alias="class")
    confidence: float = Field(ge=0, le=1, description="Calibrated probability.")


class Neighbour(BaseModel):
    """A training photo that resembles the one in the request."""

    class_: str = Field(serialization_alias="class")
    path: str = Field(description="Its file in the study's folder of photos.")
    similarity: float = Field(ge=-1.001, le=1.001, description="Cosine of the angle between the features.")


class Result(BaseModel):
    """One photo: either `predicted` and what belongs to it, or `error`."""

    name: str = Field(description="The file's name as sent, or its address; empty where there is none.")
    predicted: str | None = None
    confidence: float | None = Field(default=None, ge=0, le=1)
    top: list[Share] | None = Field(default=None, description="The most likely classes, the most likely first.")
    unsure: bool | None = Field(
        default=None, description="Whether the confidence is below the threshold; absent where none was asked for."
    )
    neighbours: list[Neighbour] | None = None
    error: Fault | None = None


class ModelName(BaseModel):
    """Which model answered."""

    id: str = Field(description="First digits of the SHA-256 of its weights.")
    strategy: str


class Answers(BaseModel):
    """A result for each photo, in the order sent."""

    model: ModelName
    results: list[Result]


class Explanation(BaseModel):
    """A heat map: which places of a photo raise the score of a class."""

    model: ModelName
    predicted: str
    confidence: float
    class_: str = Field(serialization_alias="class", description="The class that the map is of.")
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
    figures: dict[str, object] = Field(description="Accuracy and other figures, with the photos they were measured on.")
    card: str = Field(description="The model card, Markdown.")
    thresholds: list[dict[str, object]] = Field(
        description="The confidence from which a share of photos (precision) is correct, and how many photos reach it; "
        "empty where the validation photos could not show it."
    )
    neighbours: int = Field(description="Training photos among which similar ones are found; 0 where there are none.")
    explanations: bool = Field(description="Whether /v1/explain works here.")
    limits: dict[str, int | float]
    frostline: str


class Reloaded(BaseModel):
    """Which model answers from here on."""

    model: ModelName


class State(BaseModel):
    """The state of the server."""

    status: str


def json_response(answer: BaseModel) -> Response:
    """An answer as JSON, without the fields that are None."""
    return Response(answer.model_dump_json(by_alias=True, exclude_none=True), media_type="application/json")


def refusals(*statuses: int) -> dict[int | str, dict[str, object]]:
    """FastAPI's `responses` for these statuses."""
    return {status: {"model": Refusal} for status in statuses}


# ---- requests --------------------------------------------------------------------------------------------------------

TopK = Annotated[int, Query(ge=1, le=1000, description="How many classes are listed.")]
NeighbourCount = Annotated[int, Query(ge=0, le=50, description="How many similar training photos are listed.")]
Threshold = Annotated[
    float | None, Query(ge=0, le=1, description="A photo below this confidence is marked unsure; default: none is.")
]
Precision = Annotated[
    float | None,
    Query(
        gt=0,
        lt=1,
        description="Sets the threshold by the share of photos at or above it that is correct, such as 0.95; "
        "see thresholds in /v1/model.",
    ),
]
ClassName = Annotated[str | None, Query(alias="class", description="Default: the predicted class.")]

_PHOTO = {"type": "string", "format": "binary"}


def photo_body(*, many: bool, allow_url: bool) -> dict[str, object]:
    """The request body of a route that takes photos, for the OpenAPI document.

    Parameters
    ----------
    many
        Whether a form may hold more than one photo.
    """
    file = {"type": "array", "items": _PHOTO, "minItems": 1} if many else _PHOTO
    content: dict[str, dict[str, object]] = {
        kind: {"schema": _PHOTO} for kind in ("image/jpeg", "image/*", "application/octet-stream")
    }
    content["multipart/form-data"] = {"schema": _object("file", file)}
    if allow_url:
        urls = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        content["application/json"] = {"schema": _object("urls", urls)}
    return {"requestBody": {"required": True, "content": content}}


def _object(key: str, value: object) -> dict[str, object]:
    return {"type": "object", "required": [key], "properties": {key: value}}
