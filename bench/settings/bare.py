"""This project's settings without this project's components: the spider and nothing else."""

from crawler.settings import *

SPIDER_MODULES = ["bench.spiders"]
COMMANDS_MODULE = ""
DOWNLOADER = "scrapy.core.downloader.Downloader"
DOWNLOADER_MIDDLEWARES = {}
ITEM_PIPELINES = {}
EXTENSIONS = {}
SPIDER_MIDDLEWARES = {}
