#!/usr/bin/env python3
"""Follows every link and image of a book's pages that leads to a file: the file is there, and has the place that is meant.

usage: scripts/book-links.py FOLDER     (target/book/html)

Exit codes: 0 all lead somewhere; 1 some do not, and are printed; 2 there is no book.
"""
import html.parser
import pathlib
import sys
import urllib.parse


class Page(html.parser.HTMLParser):
    """The places that a page has, and where its links and images lead."""

    def __init__(self, path):
        super().__init__()
        self.places, self.targets = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.places.update(values[key] for key in ("id", "name") if values.get(key))
        key = {"a": "href", "img": "src", "link": "href", "script": "src"}.get(tag)
        if key and values.get(key):
            self.targets.append(values[key])


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) == 2 else "target/book/html").resolve()
    # The page for paths that are not there is read from anywhere, the printed one repeats the others.
    files = [path for path in sorted(folder.rglob("*.html")) if path.name not in ("404.html", "print.html")]
    if not files:
        print(f"book-links: {folder} holds no pages", file=sys.stderr)
        sys.exit(2)
    pages = {path: Page(path) for path in files}
    count, broken = 0, []
    for path, page in pages.items():
        for target in page.targets:
            parts = urllib.parse.urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            count += 1
            file = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            place = urllib.parse.unquote(parts.fragment)
            there = file.is_file() and file.is_relative_to(folder)
            if not there or place and file in pages and place not in pages[file].places:
                broken.append(f"{path.relative_to(folder)}: {target}")
    for line in sorted(set(broken)):
        print(f"book-links: leads nowhere: {line}", file=sys.stderr)
    print(f"book-links: {count} links in {len(pages)} pages, {len(broken)} lead nowhere")
    sys.exit(1 if broken or count == 0 else 0)


main()
