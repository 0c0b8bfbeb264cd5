"""Signals of the project, beside Scrapy's own. Handlers run in the reactor thread."""

page_settled = object()
"""A page's callback has ended and every item of it is safe or will never be.

Handlers get ``request``, the page's request, and ``page``, a ``crawler.pages.SettledPage``.
"""
