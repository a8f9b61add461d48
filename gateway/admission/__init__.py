"""Request admission: authentication, authorization, rate limits, replay protection. Pure, except the replay guard and limiter."""
