"""Scrapy settings of the project. What an operator may set is in ``crawler/options.py``."""

import os

from crawler.options import defaults_and_environment

BOT_NAME = "data-crawler"
SPIDER_MODULES = ["spiders"]
NEWSPIDER_MODULE = "spiders"
COMMANDS_MODULE = "crawler.commands"

# Every own setting by its Scrapy name: its default, or the environment's CRAWLER_ + name.
_own = defaults_and_environment(os.environ)
globals().update(_own)

# Politeness. A spider may be slower than this for its site.
USER_AGENT = f"data-crawler/0.1 (+{_own['CONTACT'] or 'contact not set'})"
ROBOTSTXT_OBEY = True
ROBOTSTXT_USER_AGENT = "data-crawler"
DOWNLOAD_DELAY = 1.0
CONCURRENT_REQUESTS_PER_DOMAIN = 1
DOWNLOAD_TIMEOUT = 30
# The request asked for three tries, ten seconds apart; the delay belongs to the failed-request ledger.
RETRY_TIMES = 3

# Memory of a 1 GB machine: without the first two a blocked sink piles up 600 MB of responses.
SCRAPER_SLOT_MAX_ACTIVE_SIZE = 300_000
CONCURRENT_ITEMS = 16
DOWNLOAD_MAXSIZE = 32 * 1024 * 1024
DOWNLOAD_WARNSIZE = 8 * 1024 * 1024
MEMUSAGE_ENABLED = False
REACTOR_THREADPOOL_MAXSIZE = 4

# Telnet and remote control listen on a port, the latter runs what is posted to it; feed export and
# memory debugging cost 11 MB. A disabled extension is imported all the same, so the base is replaced.
TELNETCONSOLE_ENABLED = False
REMOTE_CONTROL_ENABLED = False
EXTENSIONS_BASE = {
    "scrapy.extensions.corestats.CoreStats": 0,
    "scrapy.extensions.logcount.LogCount": 0,
    "scrapy.extensions.memusage.MemoryUsage": 0,
    "scrapy.extensions.closespider.CloseSpider": 0,
    "scrapy.extensions.logstats.LogStats": 0,
    "scrapy.extensions.throttle.AutoThrottle": 0,
}
COOKIES_ENABLED = False
FEED_EXPORT_ENCODING = "utf-8"

# Delivery is the last pipeline: what reaches it is what the site's rows will be.
ITEM_PIPELINES = {"pipelines.deliver.DeliverPipeline": 900}
EXTENSIONS = {"extensions.run_ledger.RunLedger": 0}
# Ours in the place of Scrapy's own.
DOWNLOADER_MIDDLEWARES = {
    "scrapy.downloadermiddlewares.httpcompression.HttpCompressionMiddleware": None,
    "crawler.middlewares.compression.CompressionMiddleware": 590,
}
# Nearest to the spider, so that it sees exactly the items that go on to the pipelines.
SPIDER_MIDDLEWARES = {"crawler.middlewares.tickets.TicketMiddleware": 950}

LOG_LEVEL = "INFO"
LOG_FORMATTER = "crawler.logs.QuietLogFormatter"
