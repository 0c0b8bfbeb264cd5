"""How data-crawler is packed: as a wheel for an installed station, as an egg for scrapyd-deploy."""

from setuptools import find_packages, setup

# The four names are generic, so they are listed: discovery would also ship ``tests`` and ``demo``.
PACKAGES = ("crawler", "spiders", "pipelines", "extensions")

setup(
    name="data-crawler",
    version="0.1.0",
    description="A crawling station for a small computer that stores what it finds in PostgreSQL",
    packages=find_packages(include=[p for name in PACKAGES for p in (name, f"{name}.*")]),
    package_data={"crawler": ["delivery/schema/*.sql", "templates/**/*"]},
    entry_points={"scrapy": ["settings = crawler.settings"]},
    python_requires=">=3.11",
    install_requires=[
        "cronsim",
        "orjson",
        "prometheus-client",
        "psutil",
        "psycopg2-binary",
        "scrapy>=2.19",
        "scrapy-deltafetch",
        "sqlitedict",
        "twisted",
    ],
    zip_safe=False,
)
