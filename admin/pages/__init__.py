"""The API Management pages: server-rendered HTML over the ``lifecycle`` and ``stepup`` services."""
