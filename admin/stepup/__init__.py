"""Step-up authentication: second factors, and single-use challenges bound to one intent."""
