"""The parts of an upload form, as the multipart parser reports them piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_multipart.multipart import parse_options_header

from api.errors import InvalidRequest
from api.faults import Fault

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELDS = ("file", "purpose")
LONGEST_VALUE = 4096  # bytes of a field that is not the file
MOST_PARTS = 16


class Form:
    """File bytes wait in ``pending`` until they are taken; everything else is small and kept."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.faults: list[Fault] = []
        self.pending = bytearray()
        self.complete = False
        self._parts = 0
        self._header = bytearray()
        self._header_value = bytearray()
        self._disposition = b""
        self._name = ""
        self._value = bytearray()
        self._in_file = False

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_data,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._complete,
        }

    def take_pending(self) -> bytearray:
        taken, self.pending = self.pending, bytearray()
        return taken

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise InvalidRequest([Fault(None, f"The form has more than {MOST_PARTS} parts.", "invalid_form")])
        self._disposition, self._name, self._in_file = b"", "", False
        self._value = bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_data(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header, self._header_value = bytearray(), bytearray()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode(errors="replace")
        named = options.get(b"filename")
        if self._name not in FIELDS:
            known = ", ".join(FIELDS)
            self.faults.append(Fault(self._name, f"{self._name}: unknown field; known here: {known}.", "unknown_field"))
        elif self._name == "file" and named is None:
            self.faults.append(Fault("file", "file: must be a file part, with a filename.", "invalid_value"))
        elif self._name == "file" and self.filename is not None:
            self.faults.append(Fault("file", "file: given more than once; one file a request.", "invalid_value"))
        elif self._name == "file" and named is not None:
            self.filename, self._in_file = named.decode(errors="replace"), True

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self.pending += data[start:end]
        elif len(self._value) <= LONGEST_VALUE:
            self._value += data[start:end]

    def _end(self) -> None:
        if not self._in_file and self._name in FIELDS:
            self.fields[self._name] = self._value[:LONGEST_VALUE].decode(errors="replace")

    def _complete(self) -> None:
        self.complete = True
