"""study.json and its kin: the type of each document, and one rule for reading and writing them.

    study.json   `Study`    a run of strategies              docs/study.schema.json
    sweep.json   `Sweep`    a run of freeze lines or sizes   docs/sweep.schema.json
    seeds.json   `Seeds`    a study over several seeds       docs/seeds.schema.json
    check.json   `Check`    what is wrong with photos        docs/check.schema.json
    bundle.json  `Bundle`   a model ready to use             docs/bundle.schema.json
    export.json  `Export`   an exported model and its proof  docs/export.schema.json

A required key is one that this version always writes; documents of older versions may lack it, so readers ask with
``get`` for what came later. Keys are only ever added. ``python -m frostline.documents FOLDER`` writes the JSON
schemas. Where the environment has FROSTLINE_CHECK_DOCUMENTS, `write` holds each document against its type first: the
test suite runs like that.

Units: shares and accuracies are fractions of 1, losses are nats, times are seconds, an `Interval` is the 95 % CI
[low, high].
"""

from frostline.documents.bundle import Bundle, Export
from frostline.documents.check import Check
from frostline.documents.files import read, read_object, trained_alike, write
from frostline.documents.schemas import problems, schema, write_schemas
from frostline.documents.seeds import Seeds
from frostline.documents.strategy import StrategyRow
from frostline.documents.study import Study
from frostline.documents.sweep import Sweep

__all__ = [
    "Bundle",
    "Check",
    "Export",
    "Seeds",
    "StrategyRow",
    "Study",
    "Sweep",
    "problems",
    "read",
    "read_object",
    "schema",
    "trained_alike",
    "write",
    "write_schemas",
]
