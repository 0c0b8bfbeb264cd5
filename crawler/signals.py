"""Signals of the project, beside Scrapy's own. Handlers run in the reactor thread."""

page_settled = object()
"""A page's callback has ended and every item of it is safe or will never be.

Handlers get ``request``, the page's request, and ``page``, a ``crawler.pages.SettledPage``.
"""

request_failed = object()
"""No answer will come of a request, its retries included.

Handlers get ``request``, the last one tried, and ``exception``.
"""

site_held = object()
"""A site asked to be left alone for longer than a crawl waits. Handlers get ``site`` and ``seconds``."""
