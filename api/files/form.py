"""The parts of a form with one file in it, as the multipart parser reports them piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_multipart.multipart import parse_options_header

from api.errors import InvalidRequest
from api.faults import Fault

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

LONGEST_VALUE = 4096  # bytes of a field that is not the file
MOST_PARTS = 16


class Form:
    """File bytes wait in ``pending`` until they are taken; everything else is small and kept.

    ``file`` is the name of the part that is the file, ``texts`` those of the others.
    """

    def __init__(self, file: str, texts: tuple[str, ...]) -> None:
        self.file, self.texts = file, texts
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

    @property
    def missing(self) -> list[Fault]:
        """The file's absence as a fault, unless what stands in its place is one already."""
        if self.filename is not None or any(fault.param == self.file for fault in self.faults):
            return []
        return [Fault(self.file, f"{self.file}: required, but not given.", "missing_field")]

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
        if self._name == self.file:
            self._file_begins(named)
        elif self._name not in self.texts:
            known = ", ".join((self.file, *self.texts))
            self.faults.append(Fault(self._name, f"{self._name}: unknown field; known here: {known}.", "unknown_field"))

    def _file_begins(self, named: bytes | None) -> None:
        if named is None:
            message = f"{self.file}: must be a file part, with a filename."
            self.faults.append(Fault(self.file, message, "invalid_value"))
        elif self.filename is not None:
            message = f"{self.file}: given more than once; one file a request."
            self.faults.append(Fault(self.file, message, "invalid_value"))
        else:
            self.filename, self._in_file = named.decode(errors="replace"), True

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self.pending += data[start:end]
        elif len(self._value) <= LONGEST_VALUE:
            self._value += data[start:end]

    def _end(self) -> None:
        if self._name in self.texts:
            self.fields[self._name] = self._value[:LONGEST_VALUE].decode(errors="replace")

    def _complete(self) -> None:
        self.complete = True
