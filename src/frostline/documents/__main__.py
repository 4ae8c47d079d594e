"""`python -m frostline.documents FOLDER` writes the JSON schemas of all documents."""

import sys
from pathlib import Path

from frostline.documents.schemas import write_schemas

for file in write_schemas(Path(sys.argv[1] if len(sys.argv) > 1 else "docs")):
    print(file)  # noqa: T201
