"""The documentation site: its hooks for MkDocs, the pages that they add, and the links between them."""
