"""Deep Red: a distributed Ray pipeline that makes a persona model out of old books."""

__version__ = "0.1.0"
