"""Read the files in a form (``multipart/form-data``), in memory."""

from __future__ import annotations

import re

from multipart import MultipartError, ParserLimitReached, PushMultipartParser, parse_options_header

from serving.errors import InputError, InputTooLargeError

# A form is parsed in pieces of this many bytes, so that other threads run in between.
PIECE = 65_536
# Largest number of fields without a file.
MAX_FIELDS = 1000
# RFC 2046 allows 70 characters.
MAX_BOUNDARY = 256

# The parser of forms does not know this way to write a file name with other characters than ASCII (RFC 5987).
_EXTENDED_FILENAME = re.compile(r";\s*filename\*\s*=", re.IGNORECASE)


def files_in_form(body: bytes, content_type: str, max_files: int) -> list[bytes]:
    """Return the contents of the files in a form, in the order of its parts.

    A part is a file if it has a file name, or no file name but the media type of a picture or of any bytes: RFC 7578
    only recommends the name. The other parts are skipped: their text is not even decoded, so no charset and no transfer
    encoding of a client is ever used.

    Raises:
        InputTooLargeError: the form has more than ``max_files`` files, or far more parts.
        InputError: the body is not a form, or it has no file.
    """
    boundary = parse_options_header(content_type)[1].get("boundary", "").encode("latin-1")
    if not 0 < len(boundary) <= MAX_BOUNDARY:
        raise InputError(f"the form's Content-Type must have a boundary of 1 to {MAX_BOUNDARY} characters")
    max_parts = max_files + MAX_FIELDS
    try:
        # Latin-1 decodes any bytes. File names are not used.
        parser = PushMultipartParser(boundary, header_charset="latin-1", max_segment_count=max_parts)
        files = _files(parser, body, max_files)
    except ParserLimitReached as error:
        raise InputTooLargeError(
            f"the form is over a limit: {error}; it may have {max_parts} parts with "
            f"{parser.max_header_count} headers of {parser.max_header_size} bytes each"
        ) from error
    except MultipartError as error:
        raise InputError(f"the form cannot be parsed: {error}") from error
    if not files:
        raise InputError(
            "the form has no image; send each picture as a part with a file name or an image/ type; "
            "with curl, write -F files=@FILE"
        )
    return files


def _files(parser: PushMultipartParser, body: bytes, max_files: int) -> list[bytes]:
    # The parser yields the headers of each part, then its content in pieces, then None at its end.
    files: list[bytes] = []
    content: list[bytes] | None = None  # The file of the current part, None for another field.
    is_file = False
    with parser:
        for start in range(0, len(body), PIECE):
            for event in parser.parse(body[start : start + PIECE]):
                if isinstance(event, (bytes, bytearray)):
                    if content is not None:
                        content.append(bytes(event))
                elif event is not None:
                    disposition = event.header("Content-Disposition", "")
                    is_named = bool(event.filename) or _EXTENDED_FILENAME.search(disposition) is not None
                    is_file = is_named or (event.filename is None and _is_binary(event.content_type or ""))
                    content = [] if is_file or event.filename is not None else None
                # A browser sends a part without name and content if no file was chosen.
                elif content is not None and (is_file or content):
                    files.append(b"".join(content))
                    if len(files) > max_files:
                        raise InputTooLargeError(
                            f"the form has more than {max_files} files, the limit; divide them among several requests"
                        )
    return files


def _is_binary(kind: str) -> bool:
    return kind.startswith("image/") or kind == "application/octet-stream"
