"""The crawls that are compared, each a Scrapy settings module."""
