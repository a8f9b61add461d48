"""The pages of API management: HTML on the services of ``lifecycle`` and ``stepup``. Thin: no rule is decided here."""
