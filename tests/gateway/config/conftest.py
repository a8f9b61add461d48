import pytest


@pytest.fixture
def written(tmp_path):
    """Writes a configuration file and returns its path."""

    def write(text):
        path = tmp_path / "gateway.toml"
        path.write_text(text)
        return path

    return write
