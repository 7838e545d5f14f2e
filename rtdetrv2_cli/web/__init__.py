"""The browser view: what live streams show, in pictures and figures, over HTTP. Knows no model."""
