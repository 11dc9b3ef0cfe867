"""The parts of a form with files in it, as the multipart parser reports them piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_multipart.multipart import parse_options_header

from api.errors.errors import InvalidRequest
from api.errors.field_errors import FieldError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

LONGEST_VALUE = 16_384  # bytes of a field that is no file: a prompt of 4,000 characters takes up to 16,000
MAX_PARTS = 16


class Form:
    """Bytes of files wait in ``pending`` until they are taken; everything else is small and stays in memory.

    ``files`` are the names of the parts that are files, of which ``optional`` ones may be absent; ``texts`` are the
    names of the others.
    """

    def __init__(self, files: tuple[str, ...], texts: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
        self.files, self.texts, self.optional = files, texts, optional
        self.fields: dict[str, str] = {}
        self.filenames: dict[str, str] = {}
        self.field_errors: list[FieldError] = []
        self.pending = {name: bytearray() for name in files}
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
    def field_names(self) -> str:
        return ", ".join((*self.files, *self.texts))

    @property
    def missing(self) -> list[FieldError]:
        """The absence of files as errors, unless what stands in their place is one already."""
        invalid_params = {field_error.param for field_error in self.field_errors}
        absent = [name for name in self.files if name not in (*self.optional, *self.filenames, *invalid_params)]
        return [FieldError(name, f"{name}: required, but not given.", "missing_field") for name in absent]

    def take_pending(self, file: str) -> bytearray:
        taken, self.pending[file] = self.pending[file], bytearray()
        return taken

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidRequest([FieldError(None, f"The form has more than {MAX_PARTS} parts.", "invalid_form")])
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
        if self._name in self.files:
            self._file_begins(named)
        elif self._name not in self.texts:
            message = f"{self._name}: unknown field; allowed here: {self.field_names}."
            self.field_errors.append(FieldError(self._name, message, "unknown_field"))

    def _file_begins(self, named: bytes | None) -> None:
        if named is None:
            self._wrong("must be a file part, with a filename")
        elif self._name in self.filenames:
            self._wrong("given more than once; one file a request")
        else:
            self.filenames[self._name], self._in_file = named.decode(errors="replace"), True

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self.pending[self._name] += data[start:end]
        elif len(self._value) <= LONGEST_VALUE:
            self._value += data[start:end]

    def _end(self) -> None:
        if self._name not in self.texts:
            return
        if self._name in self.fields:
            self._wrong("given more than once")
        elif len(self._value) > LONGEST_VALUE:
            self._wrong(f"longer than {LONGEST_VALUE} bytes")
        self.fields[self._name] = self._text()

    def _text(self) -> str:
        try:
            return self._value[:LONGEST_VALUE].decode()
        except UnicodeDecodeError:
            if len(self._value) <= LONGEST_VALUE:
                self._wrong("not UTF-8")
            return ""

    def _wrong(self, what: str) -> None:
        self.field_errors.append(FieldError(self._name, f"{self._name}: {what}.", "invalid_value"))

    def _complete(self) -> None:
        self.complete = True
