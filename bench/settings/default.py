"""Scrapy as it comes, with a spider and nothing else."""

SPIDER_MODULES = ["bench.spiders"]
