"""What a benchmark returns: figures, and a table of them."""

import json
from typing import Any, NamedTuple


class Report(NamedTuple):
    """The figures of one case."""

    rows: list[dict[str, Any]]  # figures by name
    table: str  # the same figures, and what follows from them, to read

    def as_json(self) -> str:
        """Returns a JSON object for each row, each on a line of its own."""
        return "\n".join(map(json.dumps, self.rows))

    def __str__(self) -> str:
        return self.table
