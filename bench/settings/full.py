"""This project as it runs on a station, with the spiders of the benchmarks."""

from crawler.settings import *

SPIDER_MODULES = ["bench.spiders"]
