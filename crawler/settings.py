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
# A site that answers slowly is asked less often; the pause of DOWNLOAD_DELAY is the shortest.
AUTOTHROTTLE_ENABLED = True
AUTOTHROTTLE_START_DELAY = 1.0
# RETRY_TIMES stays at Scrapy's 2: three tries in all, RETRY_DELAY_SECONDS apart, then the ledger of
# failed requests, which is also why giving up is no error yet.
RETRY_GIVE_UP_LOG_LEVEL = "INFO"

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
}
COOKIES_ENABLED = False
FEED_EXPORT_ENCODING = "utf-8"

# Delivery is the last pipeline: what reaches it is what the site's rows will be.
ITEM_PIPELINES = {"pipelines.deliver.DeliverPipeline": 900}
EXTENSIONS = {
    "extensions.run_ledger.RunLedger": 0,
    # AutoThrottle, with a pause that nothing undercuts.
    "extensions.politeness.Politeness": 0,
}
DOWNLOADER = "crawler.downloader.Downloader"
SPIDER_MIDDLEWARES = {
    # The second in the place of the first: an answer that no callback gets to see is a failed request.
    "scrapy.spidermiddlewares.httperror.HttpErrorMiddleware": None,
    "crawler.middlewares.failed_requests.FailedRequestMiddleware": 50,
    # Far from the spider: the requests it does not make are links of their page all the same.
    "crawler.middlewares.deltafetch.DeltaFetch": 100,
    # Nearest to the spider, so that it sees exactly the items that go on to the pipelines.
    "crawler.middlewares.tickets.TicketMiddleware": 950,
}
DOWNLOADER_MIDDLEWARES = {
    "scrapy.downloadermiddlewares.robotstxt.RobotsTxtMiddleware": None,
    "crawler.middlewares.robots.PatientRobotsTxtMiddleware": 100,
    # Above RetryMiddleware (550), MetaRefreshMiddleware (580), HttpCompressionMiddleware (590) and
    # RedirectMiddleware (600), so that of each page it sees the one answer a callback would, decoded: the
    # hash of a body does not depend on how it was packed. Below DefaultHeaders (400) and UserAgent (500),
    # so that it knows the values of the headers a page may vary by before it asks; what is set further
    # down than that, Accept-Encoding apart, keeps a page that varies by it from being remembered.
    "crawler.middlewares.conditional.ConditionalGet": 545,
    "scrapy.downloadermiddlewares.retry.RetryMiddleware": None,
    "crawler.middlewares.retry.SpacedRetryMiddleware": 550,
    # In the place of Scrapy's own.
    "scrapy.downloadermiddlewares.httpcompression.HttpCompressionMiddleware": None,
    "crawler.middlewares.compression.CompressionMiddleware": 590,
    # Next to the downloader, so that a request that is held back counts as one nowhere else.
    "crawler.middlewares.retry_after.RetryAfterMiddleware": 950,
}

LOG_LEVEL = "INFO"
LOG_FORMATTER = "crawler.logs.QuietLogFormatter"
