"""Write the page."""

from tools.httpdocs import TARGET, page

TARGET.write_text(page(), "utf-8")
