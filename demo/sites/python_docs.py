"""The local copy of docs.python.org: generated Sphinx pages, or the real ones from a directory."""

import mimetypes
from datetime import UTC, datetime
from functools import lru_cache
from html import escape
from pathlib import Path
from random import Random

from demo.sites import prose
from demo.sites.page import FIRST_PUBLISHED, Page, text_page
from demo.sites.revision import Revision, last_changes

VERSION = "3.14.0"
BASE_PATH = "3/"
ROBOTS = """Sitemap: https://docs.python.org/sitemap.xml

User-agent: *
Disallow: /dev
Disallow: /release
Disallow: /3.5
"""
MODULES_OUTSIDE_LIBRARY = ("distutils.core", "distutils.command")
"""Listed by the index, documented elsewhere, as distutils is in older editions."""


class PythonDocsSite:
    """``count`` pages of a library reference, and the index that lists their modules."""

    name = "python_docs"
    base_path = BASE_PATH

    def __init__(self, seed: int, count: int) -> None:
        self.seed = seed
        self.modules = module_names(seed, count)
        self._numbers = {f"/3/library/{name}.html": at for at, name in enumerate(self.modules)}

    def page(self, path: str, revision: Revision) -> Page | None:
        """Given a path, return the module index, a module's page or robots.txt."""
        if path == "/robots.txt":
            return text_page(ROBOTS, "text/plain")
        if path == "/3/py-modindex.html":
            return text_page(sphinx("Python Module Index", "", self._index()), "text/html")
        number = self._numbers.get(path)
        if number is None:
            return None
        changes = last_changes(self.name, self.seed, len(self.modules), revision)
        return self._module(number, changes[number])

    def _index(self) -> str:
        rows = []
        for number, name in enumerate(self.modules):
            rows.append(index_row(f"library/{name}.html", name))
            # Some pages document two modules, as profile.html documents cProfile.
            if number % 40 == 0:
                rows.append(index_row(f"library/{name}.html", f"_{name}"))
        rows += [index_row("distutils/apiref.html", name) for name in MODULES_OUTSIDE_LIBRARY]
        return (
            "<h1>Python Module Index</h1>\n"
            '<table class="indextable modindextable">\n' + "\n".join(rows) + "\n</table>"
        )

    def _module(self, number: int, last_change: int) -> Page:
        name = self.modules[number]
        random = Random(f"{self.seed}:module:{number}")
        subject = prose.sentence(random, random.randint(2, 5)).rstrip(".")
        # Half of the pages stay under 12 kB; one in thirty is a long one, of 100 to 300 kB.
        long_page = random.random() < 1 / 30
        entries = random.randint(70, 200) if long_page else int(random.lognormvariate(1.75, 0.8))
        others = random.choices(self.modules, k=8)
        head = (
            f'<section id="module-{name}"><h1><code class="xref py py-mod docutils literal '
            f'notranslate"><span class="pre">{name}</span></code> — {subject}{permalink(name)}</h1>'
            f'<p><strong>Source code:</strong> <a class="reference external" '
            f'href="https://github.com/python/cpython/tree/main/Lib/{name}.py">Lib/{name}.py</a></p>'
        )
        parts = [head, f"<p>{prose.paragraph(random, 4)}</p>{references(others)}"]
        for entry in range(entries):
            if entry % 8 == 0:
                parts.append(section_heading(random, entry))
            parts.append(function(random, name, entry))
        if last_change > 1:
            # One word more for each revision, so that no two of them have the same text length.
            parts.append(
                '<div class="versionchanged"><p><span class="versionmodified changed">Changed in '
                f"version {VERSION}: </span>{' '.join(['again'] * last_change)}.</p></div>"
            )
        body = "\n".join(parts) + "</section>"
        return text_page(sphinx(f"{name} — {subject}", "../", body), "text/html", last_change)


class PythonDocsDirectory:
    """Real pages, e.g. of Debian's python3-doc package. Revisions do not change them."""

    name = "python_docs"
    base_path = BASE_PATH

    def __init__(self, directory: Path) -> None:
        """Given the directory of py-modindex.html, serve it. Raise ValueError without that file."""
        if not (directory / "py-modindex.html").is_file():
            raise ValueError(
                f"python_docs directory {str(directory)!r} has no py-modindex.html; allowed: the "
                "html directory of the Python documentation. On Debian: apt-get install "
                "python3-doc, then /usr/share/doc/python3/html"
            )
        self.directory = directory

    def page(self, path: str, revision: Revision) -> Page | None:
        """Given a path under /3/, return that file; /robots.txt is the generated one."""
        if path == "/robots.txt":
            return text_page(ROBOTS, "text/plain")
        if not path.startswith(f"/{BASE_PATH}"):
            return None
        relative = path.removeprefix(f"/{BASE_PATH}")
        # An empty part would make the path absolute, and lead outside as well as two dots would.
        if {"", ".."} & set(relative.split("/")):
            return None
        file = self.directory / relative
        if not file.is_file():
            return None
        modified = datetime.fromtimestamp(int(file.stat().st_mtime), UTC)
        content_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        return Page(file.read_bytes(), content_type, max(modified, FIRST_PUBLISHED))


@lru_cache(maxsize=8)
def module_names(seed: int, count: int) -> tuple[str, ...]:
    """Return ``count`` different module names, one in five inside a package."""
    random = Random(f"{seed}:modules")
    words = [word for word in prose.WORDS if word.isalpha()]
    names: dict[str, None] = {}
    while len(names) < count:
        name = random.choice(words) + random.choice(("", "lib", "tools", random.choice(words)))
        names[f"{random.choice(words)}.{name}" if random.random() < 0.2 else name] = None
    return tuple(sorted(names))


def index_row(page: str, name: str) -> str:
    return (
        f'<tr>\n<td></td>\n<td>\n<a href="{page}#module-{name}"><code class="xref">{name}</code>'
        "</a></td><td>\n<em></em></td></tr>"
    )


def permalink(anchor: str) -> str:
    return f'<a class="headerlink" href="#{anchor}" title="Permalink to this headline">¶</a>'


def references(modules: list[str]) -> str:
    items = "".join(
        f'<li><p><a class="reference internal" href="{name}.html#module-{name}" title="{name}">'
        f'<code class="xref py py-mod docutils literal notranslate"><span class="pre">{name}</span>'
        "</code></a></p></li>\n"
        for name in modules
    )
    return f'<div class="admonition seealso"><p>See also</p><ul>\n{items}</ul></div>'


def section_heading(random: Random, entry: int) -> str:
    level = "h2" if entry % 16 == 0 else "h3"
    text = prose.sentence(random, random.randint(2, 4)).rstrip(".")
    return f"<{level}>{text}{permalink(f'section-{entry}')}</{level}>"


def function(random: Random, module: str, entry: int) -> str:
    name = f"{random.choice(prose.WORDS).replace('-', '_')}_{entry}"
    anchor = f"{module}.{name}"
    arguments = ", ".join(
        f'<em class="sig-param"><span class="n"><span class="pre">{word}</span></span></em>'
        for word in random.sample(prose.SMALL_WORDS, 3)
    )
    lines = "".join(
        f'<span class="gp">&gt;&gt;&gt; </span><span class="n">{name}</span>'
        f'<span class="p">(</span><span class="mi">{random.randrange(999)}</span>'
        f'<span class="p">)</span>\n'
        f'<span class="go">&#39;{escape(random.choice(prose.FOREIGN))}&#39;</span>\n'
        for _ in range(random.randint(1, 3))
    )
    return f"""<dl class="py function">
<dt class="sig sig-object py" id="{anchor}">
<span class="sig-prename descclassname"><span class="pre">{module}.</span></span><span
class="sig-name descname"><span class="pre">{name}</span></span><span
class="sig-paren">(</span>{arguments}<span class="sig-paren">)</span>{permalink(anchor)}</dt>
<dd><p>{prose.paragraph(random, random.randint(1, 4))}</p>
<div class="highlight-python3 notranslate"><div class="highlight"><pre>{lines}</pre></div></div>
</dd></dl>"""


def sphinx(title: str, root: str, body: str) -> str:
    """Given a title, the way to the root and the main text, return a page as Sphinx lays it out."""
    return f"""<!DOCTYPE html>

<html lang="en">
  <head>
    <meta charset="utf-8" />
    <meta name="viewport" content="width=device-width, initial-scale=1.0" />
    <title>{title} &#8212; Python {VERSION} documentation</title>
    <link rel="stylesheet" type="text/css" href="{root}_static/pygments.css" />
    <link rel="stylesheet" type="text/css" href="{root}_static/pydoctheme.css?v=1" />
    <script src="{root}_static/documentation_options.js"></script>
    <script src="{root}_static/doctools.js"></script>
    <link rel="index" title="Index" href="{root}genindex.html" />
    <link rel="copyright" title="Copyright" href="{root}copyright.html" />
    <link rel="canonical" href="https://docs.python.org/3/" />
  </head>
<body>
<div class="mobile-nav"><nav class="nav-content" role="navigation">
    <a href="https://www.python.org/" class="nav-logo"><img src="{root}_static/py.svg" alt=""/></a>
    <form role="search" class="search" action="{root}search.html" method="get">
        <input type="text" name="q" aria-label="Quick search"/><input type="submit" value="Go"/>
    </form>
</nav></div>
<div class="related" role="navigation" aria-label="Related">
  <h3>Navigation</h3>
  <ul>
    <li class="right"><a href="{root}genindex.html" title="General Index">index</a></li>
    <li class="right"><a href="{root}py-modindex.html" title="Python Module Index">modules</a></li>
    <li><a href="https://www.python.org/">Python</a> &#187;</li>
    <li id="cpython-language-and-version"><a href="{root}index.html"
    >{VERSION} Documentation</a></li>
  </ul>
</div>
<div class="document"><div class="documentwrapper"><div class="bodywrapper">
<div class="body" role="main">
{body}
<div class="clearer"></div>
</div></div></div>
<div class="sphinxsidebar" role="navigation" aria-label="Main"><div class="sphinxsidebarwrapper">
  <h3>This page</h3>
  <ul class="this-page-menu"><li><a href="{root}bugs.html">Report a bug</a></li></ul>
</div></div>
</div>
<div class="footer">
  &copy; <a href="{root}copyright.html">Copyright</a> Python Software Foundation.<br />
  Last updated on Jan 06, 2025 (08:00 UTC). Created using Sphinx 8.2.3.
</div>
</body>
</html>
"""
