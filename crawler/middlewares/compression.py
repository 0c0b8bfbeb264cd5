"""Unpacks compressed pages as Scrapy does, without guessing the charset of the compressed bytes."""

from scrapy import Request
from scrapy.downloadermiddlewares.httpcompression import HttpCompressionMiddleware
from scrapy.http import Response, TextResponse


class CompressionMiddleware(HttpCompressionMiddleware):
    """Scrapy 2.19 makes a text response of a packed page whose address ends in ``.html`` or ``.json``.

    Copying such a response asks for its charset, and where no header names one that is guessed from the
    body, which is still packed: the longest and most useless part of such a crawl.
    """

    def process_response(self, request: Request, response: Response) -> Request | Response:  # type: ignore[override]
        """Return the response unpacked, as text if it is text."""
        is_packed = request.method != "HEAD" and response.headers.get("Content-Encoding")
        if is_packed and isinstance(response, TextResponse):
            response = _as_bytes(response)
        return super().process_response(request, response)


def _as_bytes(response: Response) -> Response:
    """Given a response that is not text yet, return it as one that does not claim to be."""
    return Response(**{name: getattr(response, name) for name in Response.attributes})
