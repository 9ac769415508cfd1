"""A page as a browser takes it apart."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """The tags of a page, its attributes and its text, cells of tables apart."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.text += " " if tag in ("td", "th") else ""

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, *names: str) -> list[str]:
        """Return the values of attributes, in the order of the page."""
        return [value or "" for name, value in self.attributes if name in names]
