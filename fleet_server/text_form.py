"""Forms of texts in requests and settings: a pattern for programs, a sentence for people.

Pydantic's own refusal shows the pattern, which says to few what to write instead.
"""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True, slots=True)
class Form:
    """Annotates a text.

    Attributes:
        pattern: that the whole text matches; it is in the OpenAPI document.
        hint: what to write instead of a text that does not.
    """

    pattern: str
    hint: str

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Check the form after the type."""
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Tell programs the pattern."""
        return {**handler(schema), "pattern": self.pattern}

    def _checked(self, text: Any) -> Any:  # noqa: ANN401 (pydantic's; the type comes before it)
        if re.fullmatch(self.pattern, text) is None:
            raise ValueError(self.hint)
        return text
